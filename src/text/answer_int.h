/* Private to the reading of answers. */
#ifndef AM_TEXT_ANSWER_INT_H
#define AM_TEXT_ANSWER_INT_H

#include "text/answer.h"

typedef enum am_found { AM_NO_CALL, AM_CALL_READ, AM_CALL_MORE } am_found;

/* Where the reading of a text is that may not be all there yet. */
typedef struct am_cursor {
    am_str s;
    size_t at;
    bool last; /* no more will come */
    bool more; /* what is missing may still come */
} am_cursor;

static inline bool am_is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
void am_cursor_blanks(am_cursor *c);
bool am_cursor_take(am_cursor *c, const char *mark); /* false: c->at is where it was, c->more says whether it may still come */

/* One call, or a list of them, at c, which then stands behind it; given to sink. */
am_found am_answer_read_call(am_answer *a, const am_answer_form *form, am_cursor *c, const am_answer_sink *sink);
am_found am_answer_read_python(am_answer *a, bool listed, am_cursor *c, const am_answer_sink *sink); /* listed: only within [ ] */
bool am_answer_put_python(am_str text, am_buf *out);                 /* one literal as JSON; false: it is none, out is as before */
const json_t *am_answer_take_name(const am_answer *a, am_cursor *c); /* the tool with the longest name that stands at c, which then is behind it */
const json_t *am_answer_type(const json_t *tool, am_str key);        /* of a parameter, as its schema says; NULL: it says nothing */
bool am_answer_takes_text(const json_t *type);
const char *am_answer_tool(const json_t *tools, am_str name); /* NULL: there is none of that name */
bool am_answer_give_call(am_answer *a, const char *name, am_str arguments, const am_answer_sink *sink); /* JSON text, its blanks are dropped */

void am_answer_give_text(am_answer *a, am_str text, const am_answer_sink *sink);
void am_answer_give_thought(am_answer *a, am_str text, const am_answer_sink *sink);
void am_answer_drop(am_answer *a, size_t n); /* the front of held */
bool am_harmony_advance(am_answer *a, bool last, const am_answer_sink *sink);

#endif
