/* Puts the files of models/memo-28m into the binary. Paths are from the repository's root, where make runs. The weights begin on a page,
 * so that the pages can be given back once they are packed. */
#if defined(__aarch64__)
#define PROGBITS %progbits
#else
#define PROGBITS @progbits
#endif

    .section .rodata.am_embedded, "a", PROGBITS

.macro embed symbol, file, align
    .balign \align
    .global \symbol
    .global \symbol\()_end
\symbol:
    .incbin "\file"
\symbol\()_end:
    .byte 0
.endm

    embed am_embedded_config, "models/memo-28m/config.json", 16
    embed am_embedded_generation, "models/memo-28m/generation_config.json", 16
    embed am_embedded_tokenizer, "models/memo-28m/tokenizer.json", 16
    embed am_embedded_tokenizer_config, "models/memo-28m/tokenizer_config.json", 16
    embed am_embedded_weights, "models/memo-28m/model.safetensors", 4096

    .section .note.GNU-stack, "", PROGBITS
