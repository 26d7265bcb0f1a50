// float scipy_cblas_sdot64_(long n, const float *x, long step_of_x, const float *y, long step_of_y)
    .text
    .globl scipy_cblas_sdot64_
    .type scipy_cblas_sdot64_, %function
scipy_cblas_sdot64_:
    fmov s0, wzr
1:  cmp x0, #0
    b.le 2f
    ldr s1, [x1]
    ldr s2, [x3]
    fmadd s0, s1, s2, s0
    add x1, x1, x2, lsl #2
    add x3, x3, x4, lsl #2
    sub x0, x0, #1
    b 1b
2:  ret

// All else of linear algebra.
    .globl absent
    .type absent, %function
absent:
    udf #0
    .section .note.GNU-stack,"",%progbits
