# float scipy_cblas_sdot64_(long n, const float *x, long step_of_x, const float *y, long step_of_y)
    .text
    .globl scipy_cblas_sdot64_
    .type scipy_cblas_sdot64_, %function
scipy_cblas_sdot64_:
    xorps %xmm0, %xmm0
1:  test %rdi, %rdi
    jle 2f
    movss (%rsi), %xmm1
    mulss (%rcx), %xmm1
    addss %xmm1, %xmm0
    lea (%rsi,%rdx,4), %rsi
    lea (%rcx,%r8,4), %rcx
    dec %rdi
    jmp 1b
2:  ret

# All else of linear algebra.
    .globl absent
    .type absent, %function
absent:
    ud2
    .section .note.GNU-stack,"",%progbits
