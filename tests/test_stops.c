/* engine/stops.c: the same text gives the same answer however it was cut into pieces. */
#include "engine/stops.h"

#include "engine/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Streams text in pieces that end where cut says (never inside a character) and returns what was shown. */
static int stream(const char *const *stop, uint32_t n, const char *text, uint64_t seed, char *shown) {
    am_str views[8];
    for (uint32_t i = 0; i < n; i++) views[i] = am_str_of(stop[i]);
    am_stops stops;
    assert_int_equal(am_stops_init(&stops, views, n, 16, NULL), AM_OK);
    size_t at = 0, len = strlen(text);
    int hit = -1;
    shown[0] = 0;
    while (at < len && hit < 0) {
        size_t size = 1 + (size_t)(am_draw_uniform(seed, at) * 5);
        if (at + size > len) size = len - at;
        while (at + size < len && ((unsigned char)text[at + size] & 0xc0) == 0x80) size++;
        am_str out;
        assert_int_equal(am_stops_push(&stops, (am_str){text + at, size}, &out, &hit), AM_OK);
        if (out.n) assert_true(((unsigned char)out.p[0] & 0xc0) != 0x80);
        strncat(shown, out.n ? out.p : "", out.n);
        at += size;
    }
    if (hit < 0) {
        am_str rest = am_stops_finish(&stops);
        strncat(shown, rest.n ? rest.p : "", rest.n);
    }
    am_stops_free(&stops);
    return hit;
}

static void expect(const char *const *stop, uint32_t n, const char *text, const char *shown, int hit) {
    for (uint64_t seed = 0; seed < 200; seed++) {
        char got[1024];
        assert_int_equal(stream(stop, n, text, seed, got), hit);
        assert_string_equal(got, shown);
    }
}

static void no_stop_strings_let_everything_through(void **state) {
    (void)state;
    expect(NULL, 0, "anything at all", "anything at all", -1);
}

static void a_stop_string_ends_the_text_also_across_pieces(void **state) {
    (void)state;
    const char *stop[] = {"\n\nUser:", "###"};
    expect(stop, 2, "An answer.\n\nUser: more", "An answer.", 0);
    expect(stop, 2, "An answer ### more", "An answer ", 1);
    expect(stop, 2, "###", "", 1);
    expect(stop, 2, "## # \n\nUser", "## # \n\nUser", -1);
    expect(stop, 2, "####", "", 1);
    expect(stop, 2, "\n\n\n\nUser:", "\n\n", 0);
}

static void overlapping_beginnings_are_held_back_right(void **state) {
    (void)state;
    const char *stop[] = {"aab", "abaaab"};
    expect(stop, 2, "aaaab", "aa", 0);
    expect(stop, 2, "abaaab", "", 1);
    expect(stop, 2, "abaaaab", "abaa", 0);
    expect((const char *[]){"abab"}, 1, "aababab", "a", 0);
}

static void the_one_complete_first_wins_the_longest_of_equal_ends(void **state) {
    (void)state;
    expect((const char *[]){"abc", "b"}, 2, "xabcx", "xa", 1);
    expect((const char *[]){"bc", "abc"}, 2, "xabcx", "x", 1);
    expect((const char *[]){"abc", "bc"}, 2, "xabcx", "x", 0);
}

static void characters_are_never_split(void **state) {
    (void)state;
    expect((const char *[]){"ü!"}, 1, "grün grü! x", "grün gr", 0);
    expect((const char *[]){"\xbc!"}, 1, "grü! x", "gr", 0); /* a stop string that begins inside a character */
    expect((const char *[]){"日本"}, 1, "あ日あ日本", "あ日あ", 0);
}

static void a_held_piece_is_freed_at_the_end(void **state) {
    (void)state;
    expect((const char *[]){"STOP"}, 1, "text STO", "text STO", -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_stop_strings_let_everything_through),
        cmocka_unit_test(a_stop_string_ends_the_text_also_across_pieces),
        cmocka_unit_test(overlapping_beginnings_are_held_back_right),
        cmocka_unit_test(the_one_complete_first_wins_the_longest_of_equal_ends),
        cmocka_unit_test(characters_are_never_split),
        cmocka_unit_test(a_held_piece_is_freed_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
