# A guest of 512 bytes: counts in RAM, writes the count to sector 1 of both disks and prints it on COM1, about twenty
# times a second. Before each count it reads both disks back, so that a state that was loaded beside other disks shows:
#
#     count 123
#     disk differs: 120
#
# A sector holds "CFCT", then the count as a 32-bit little-endian number. RAM's count stands at physical address 0x600.
# It boots from the first disk's sector 0, which it does not change.

        .code16
        .globl  _start
        .set    sector, 0x8000          # what is written
        .set    readback, 0x8200        # what was read
        .set    count, 0x600

_start:
        ljmp    $0, $entry
entry:
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        sti
        movl    $0, count
        movw    $sector, %di            # the sector's other bytes are zeros
        movw    $256, %cx
        rep     stosw
        movl    $0x54434643, sector     # "CFCT"

        movw    $0x00e3, %ax            # COM1: 9600 baud, 8N1
        xorw    %dx, %dx
        int     $0x14

loop:
        cmpl    $0, count               # nothing was written before the first count
        je      next
        movb    $0x80, %dl
        call    verify
        movb    $0x81, %dl
        call    verify
next:
        incl    count
        movl    count, %eax
        movl    %eax, sector+4
        movw    $text_count, %si
        call    print
        movl    count, %eax
        call    print_number

        movb    $0x80, %dl
        call    write
        movb    $0x81, %dl
        call    write
        movw    $text_newline, %si
        call    print

        movb    $0x86, %ah              # wait 50,000 microseconds
        xorw    %cx, %cx
        movw    $50000, %dx
        int     $0x15
        jmp     loop

# Writes the sector to disk %dl.
write:
        movw    $sector, packet_buffer
        movw    $packet, %si
        movw    $0x4300, %ax
        int     $0x13
        jc      failed
        ret

# Reads disk %dl and prints its count if it is not RAM's.
verify:
        movw    $readback, packet_buffer
        movw    $packet, %si
        movb    $0x42, %ah
        int     $0x13
        jc      failed
        movl    readback+4, %eax
        cmpl    count, %eax
        je      1f
        pushl   %eax
        movw    $text_disk, %si
        call    print
        popl    %eax
        call    print_number
        movw    $text_newline, %si
        call    print
1:      ret

failed:
        movw    $text_failed, %si
        call    print
        ret

# Prints the string at %si.
print:
        lodsb
        testb   %al, %al
        jz      1f
        call    put
        jmp     print
1:      ret

# Prints %eax in decimal.
print_number:
        movl    $10, %ebx
        xorw    %cx, %cx
1:      xorl    %edx, %edx
        divl    %ebx
        pushw   %dx
        incw    %cx
        testl   %eax, %eax
        jnz     1b
2:      popw    %ax
        addb    $'0', %al
        call    put
        loop    2b
        ret

# Sends %al to COM1.
put:
        pushw   %dx
        movb    %al, %ah
        movw    $0x3fd, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movw    $0x3f8, %dx
        movb    %ah, %al
        outb    %al, %dx
        popw    %dx
        ret

text_count:     .asciz  "count "
text_disk:      .asciz  "disk differs: "
text_failed:    .asciz  " disk error"
text_newline:   .asciz  "\r\n"

packet:         .byte   16, 0           # disk address packet: one sector at LBA 1
                .word   1
packet_buffer:  .word   sector, 0
                .quad   1

        .org    510
        .word   0xaa55
