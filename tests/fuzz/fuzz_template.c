/* A template's source, rendered with a conversation of the usual shape. */
#include "template_use.h"

FUZZ_TARGET(template) {
    static json_t *context; /* for the life of the program */
    static const char text[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"<u>\"},{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.5}}}]}],\"tools\":[{\"function\":{\"name\":\"f\"}}],\"n\":7,\"x\":2.5,"
        "\"l\":[3,1,2],\"d\":{\"k\":\"v\"},\"e\":\"\",\"t\":true,\"none_v\":null,\"bos_token\":\"<s>\",\"add_generation_prompt\":true}";
    if (!context) context = json_loads(text, 0, NULL);
    template_use((am_str){(const char *)data, size}, context);
    return 0;
}
