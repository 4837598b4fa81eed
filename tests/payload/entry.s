/* The kernel half of the payload, as little as there can be: on the machines where this runs,
   ring 0 may be interpreted at a microsecond an instruction. It enters long mode, starts ring 3,
   counts interrupts, and waits in HLT. Everything else happens in ring 3.

   Selectors are Linux's: 0x10 kernel code, 0x18 kernel data, 0x2b user data, 0x33 user code. */

    .set TSS, 0x200000              /* link.ld */
    .set TSS_STRIDE, 0x3000
    .set TSS_LIMIT, 104 + 8192      /* 104 bytes, the I/O bitmap, one byte of ones */
    .set LAPIC_EOI, 0xfee000b0
    .set STACK, 0x10000

    .section .note.pvh, "a", @note  /* XEN_ELFNOTE_PHYS32_ENTRY, as in Xen's elfnote.h */
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_entry

    .section .tss, "aw"
    .macro tss stack
    .long 0
    .quad \stack                    /* RSP0 */
    .skip 0x66 - 12
    .word 104                       /* the I/O bitmap: every port is ring 3's */
    .skip 8192
    .byte 0xff
    .endm
    tss kernel_stack_0
    .org TSS_STRIDE
    tss kernel_stack_1

    .data
    .macro tss_descriptor base
    .quad (TSS_LIMIT & 0xffff) | ((\base & 0xffffff) << 16) | (0x89 << 40) | ((\base >> 24) << 56)
    .quad 0
    .endm
    .balign 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        /* 0x08 kernel code, 32 bits */
    .quad 0x00af9b000000ffff        /* 0x10 kernel code */
    .quad 0x00cf93000000ffff        /* 0x18 kernel data */
    .quad 0x00cffb000000ffff        /* 0x20 user code, 32 bits */
    .quad 0x00cff3000000ffff        /* 0x28 user data */
    .quad 0x00affb000000ffff        /* 0x30 user code */
    .quad 0
    tss_descriptor TSS              /* 0x40 */
    tss_descriptor (TSS + TSS_STRIDE)
gdt_end:
    .balign 8
    .skip 6
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .balign 8
    .skip 6
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

    .balign 4096
pml4:
    .quad pdpt + 7
    .skip 511 * 8
pdpt:
    .quad pd + 0x7, pd + 0x1007, pd + 0x2007, pd + 0x3007, pd + 0x4007, pd + 0x5007
    .skip 506 * 8
pd:                                 /* the first 6 GiB, for all rings, in pages of 2 MiB */
    .set page, 0
    .rept 3072
    .quad (page << 21) | 0x87
    .set page, page + 1
    .endr

    .bss
    .balign 4096
    .globl idt
idt:
    .skip 4096
    .balign 16
    .skip STACK
kernel_stack_0:
    .skip STACK
kernel_stack_1:
    .skip STACK
user_stack_0:
    .skip STACK
user_stack_1:
    .globl irq_counts
irq_counts:
    .skip 256 * 8
    .globl trap
trap:                               /* vector, error code, address, CR2 */
    .skip 4 * 8

    .text
    .code32
    .globl pvh_entry
pvh_entry:                          /* EBX: hvm_start_info */
    cld
    mov %ebx, %edi
    xor %ebp, %ebp
    jmp enter_long_mode
second_cpu:
    cld
    mov $1, %ebp
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
enter_long_mode:                    /* EBP: which CPU, EDI: what guest_main gets */
    lgdt gdt_pointer
    mov %cr4, %eax
    or $0x620, %eax                 /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax                 /* EFER.LME */
    wrmsr
    mov %cr0, %eax
    and $~0xc, %eax                 /* neither EM nor TS: ring 3 uses SSE */
    or $0x80000003, %eax
    mov %eax, %cr0
    ljmp $0x10, $long_mode

    .code64
long_mode:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lidt idt_pointer
    mov %ebp, %esi
    shl $4, %esi
    add $0x40, %esi
    ltr %si
    mov $STACK, %eax
    mul %ebp
    lea kernel_stack_0(%rax), %rsp
    lea user_stack_0 - 8(%rax), %rcx
    mov %ebp, %esi
    push $0x2b
    push %rcx
    push $0x202
    push $0x33
    push $guest_main
    iretq

    .globl interrupt_stubs
    .balign 16
interrupt_stubs:                    /* 16 bytes each */
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    .else
    push $0
    .endif
    pushq $vector
    .if vector == 3
    jmp service
    .elseif vector < 32
    jmp fault
    .else
    jmp interrupt
    .endif
    .set vector, vector + 1
    .endr

interrupt:
    push %rax
    mov 8(%rsp), %rax
    incq irq_counts(, %rax, 8)
    mov $LAPIC_EOI, %eax
    movl $0, (%rax)
    pop %rax
    add $16, %rsp
    iretq

fault:                              /* ring 3 goes on in guest_fault; ring 0 is lost */
    pop trap
    pop trap + 8
    push %rax
    mov 8(%rsp), %rax
    mov %rax, trap + 16
    mov %cr2, %rax
    mov %rax, trap + 24
    testb $3, 16(%rsp)
    jz lost
    movq $guest_fault, 8(%rsp)
    andq $~15, 32(%rsp)
    subq $8, 32(%rsp)
    pop %rax
    iretq
lost:
    mov $0x3f8, %edx
    mov $'!', %al
    out %al, %dx
    cli
    hlt
    jmp lost

service:                            /* int3 of ring 3: wait until the counter at RDI is not RSI */
    add $16, %rsp
    cmp %rsi, (%rdi)
    jne 1f
    sti
    hlt
    cli
1:  iretq

    .globl trampoline, trampoline_end
    .code16
trampoline:                         /* copied below 1 MiB; a SIPI starts here in real mode */
    cli
    mov %cs, %ax
    mov %ax, %ds
    lgdtl tiny_pointer - trampoline
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x08, $second_cpu
    .balign 4
tiny_pointer:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:
    .code64
