/* The program. Owns nothing yet but its version line; the command table comes with the server. */
#include <stdio.h>

int main(void) {
    puts("agent-memory " AM_VERSION);
    return 0;
}
