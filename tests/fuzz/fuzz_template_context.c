/* A template's source, a NUL, and the JSON it is rendered with; without a NUL all of it is the JSON of a common template. */
#include "template_use.h"

#include <string.h>

FUZZ_TARGET(template_context) {
    static const char common[] = "{% for m in messages %}{% if m.content is string %}{{ m.role | upper }}: {{ m.content | trim }}{% else %}{{ m | tojson(indent=2) }}"
                                 "{% endif %}{% for k, v in m.items() %}{{ k }}={{ v }}{{ '%s' % v }}{% endfor %}{% endfor %}{{ tools }}{{ messages | sort | length }}";
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    am_str source = nul ? (am_str){(const char *)data, (size_t)(nul - data)} : am_str_of(common);
    am_str json = nul ? (am_str){(const char *)nul + 1, size - source.n - 1} : (am_str){(const char *)data, size};
    json_t *context = NULL;
    if (am_json_parse(json, false, &context, NULL) == AM_OK && json_is_object(context)) template_use(source, context);
    json_decref(context);
    return 0;
}
