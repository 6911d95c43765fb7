/* web/index.html inside the program (the build runs in the repository's root). */
    .section .rodata
    .global am_page_begin
    .global am_page_end
am_page_begin:
    .incbin "web/index.html"
am_page_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
