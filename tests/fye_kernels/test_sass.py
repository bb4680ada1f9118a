"""Loops, matrix instructions and memory accesses are found in machine code."""

from fye_kernels.report import CARDS, measure
from fye_kernels.sass import access, hot_loop, matrix, parsed
from fye_kernels.variant import Variant, Work

# as cuobjdump prints it: a loop without matrix instructions, then one that waits in a loop out of line for a barrier,
# and steps over a store; the block that ends the kernel jumps to itself
LISTING = """
    Function : _kernel
        /*0000*/                   LDC R1, c[0x0][0x28] ;                  /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 BRA 0x40 ;                              /* 0x000000000000894d */
        /*0020*/                   LDG.E.64 R2, desc[UR4][R2.64] ;         /* 0x0000000402027981 */
        /*0030*/               @P1 BRA 0x20 ;                              /* 0x000000000000894d */
        /*0040*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ; /* 0x00000a00ff017624 */
        /*0050*/                   LDGSTS.E.BYPASS.128 [R4], [R2.64] ;     /* 0x0000000402027981 */
        /*0060*/                   HGMMA.64x128x16.F32 R24, gdesc[UR8] ;   /* 0x0000000402027981 */
        /*0070*/              @!P2 BRA 0xd0                               ?WAIT13_END_GROUP;
        /*0080*/               @P3 BRA 0xa0 ;                              /* 0x000000000000894d */
        /*0090*/                   STG.E.U16 desc[UR4][R2.64], R5 ;        /* 0x000000000000894d */
        /*00a0*/                   BRA.U !UP1, 0x50 ;                      /* 0x000000000000894d */
        /*00b0*/                   STG.E desc[UR4][R2.64], R5 ;            /* 0x000000000000894d */
        /*00c0*/                   EXIT ;                                  /* 0x000000000000894d */
        /*00d0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [R6], R5 ;
        /*00e0*/              @!P2 BRA 0xd0 ;                              /* 0x000000000000894d */
        /*00f0*/                   BRA 0x80 ;                              /* 0x000000000000894d */
        /*0100*/                   BRA 0x100;                              /* 0x000000000000894d */
        /*0110*/                   NOP;                                    /* 0x000000000000894d */
"""


def test_the_hot_loop_has_the_matrix_instructions_and_the_blocks_that_lie_elsewhere() -> None:
    listed = parsed(LISTING)
    assert [each.address for each in listed] == list(range(0, 0x100, 0x10))
    loop = hot_loop(listed)
    assert [each.address for each in loop] == [*range(0x50, 0xB0, 0x10), 0xD0, 0xE0, 0xF0]
    assert matrix(loop) == matrix(listed) == {"HGMMA.64x128x16.F32": 1}
    assert access(listed) == {"LDG.E.64": 1, "LDGSTS.E.BYPASS.128": 1, "STG.E.U16": 1, "STG.E": 1}


def test_without_matrix_instructions_the_longest_loop_is_hot_and_without_loops_the_kernel() -> None:
    plain = parsed(LISTING.replace("HGMMA", "FFMA"))
    assert [each.address for each in hot_loop(plain)] == [0x20, 0x30]  # the other one has a loop inside
    straight = parsed(LISTING.replace("BRA", "MOV"))
    assert hot_loop(straight) == straight


def test_a_report_counts_instructions_and_bytes_per_unit() -> None:
    variant = Variant("a", None, {}, {}, (), (), Work(64, 5.0, "score", 160.0), warps=2)
    entry = {"registers": 9, "shared_memory": 8, "stack": 0}
    row = measure(variant, entry, parsed(LISTING), "sm_90a")
    assert row["instructions"] == round(9 * 2 / 64, 4)
    assert row["bytes"] == 32 * 2 * (16 + 2) / 64 and row["least_bytes"] == 5
    assert row["issue_bound"] == round(4 * CARDS["sm_90a"].multiprocessors * 1.83e9 * 64 / 18 * 160 / 1e12)
    assert measure(variant, entry, parsed(LISTING), "sm_103a")["issue_bound"] is None
