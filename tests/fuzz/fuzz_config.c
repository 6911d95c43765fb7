/* config.json of every architecture: sizes, rope, layer kinds, quantisation, as `show --config` reads it. */
#include "model_use.h"

FUZZ_TARGET(config) {
    model_use(model_file("config.json", data, size), true);
    return 0;
}
