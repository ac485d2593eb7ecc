//! Page-shift arithmetic and page masks stay in one file: all other code asks the address types.

use super::Breach;
use crate::tokens::{Token, tokens};
use crate::tree::Tree;

pub(super) const LAW: &str = "page-shift arithmetic and raw page masks stand in model/src/addr.rs and model/src/addr/ only; use the methods of \
                              Gpa, Gfn and StolenMask, or add one there.";

/// Files that may shift and mask all the same.
pub(super) const EXCEPTIONS: &[(&str, &str)] = &[
    ("model/src/addr.rs", "the one room where addresses are taken apart"),
    ("model/src/addr/level.rs", "the same room: what one leaf translates"),
    ("model/src/addr/stolen.rs", "the same room: frame and alias of an address"),
    ("oracles/src/run/features.rs", "packs feature cells into bit fields; no address is in them"),
    ("targets/kvm-ko/worker/src/cpu/format.rs", "what the bits of the processor's entries mean"),
    ("targets/kvm-ko/worker/src/cpu/walk.rs", "the processor's own page-table entries"),
    ("targets/kvm-ko/worker/src/cpu/guest_walk.rs", "those of the guest"),
    ("targets/kvm-ko/worker/src/cpu/enter.rs", "the processor: what it tells of a fault"),
    ("targets/kvm-ko/worker/src/cpu/tlb.rs", "the processor: what it tags translations by"),
    ("targets/kvm-ko/worker/src/kernel/inside.rs", "the frames of entries as the kernel has them"),
    ("targets/kvm-ko/worker/src/kernel/files.rs", "the kernel's MAX_ERRNO, which is no mask"),
    ("targets/kvm-ko/worker/src/memory/heap.rs", "the pages of the kernel's own memory"),
    ("targets/kvm-ko/worker/tests/kernel.rs", "addresses as the processor and the kernel have them"),
    ("targets/kvm-mmu/src/tables/spte.rs", "the bit layout of this target's page-table entries"),
    ("targets/kernels/src/cache/seal.rs", "modes of files, in octal"),
];

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let sources = tree.files().filter(|(path, _)| path.ends_with(".rs"));
    for (path, text) in sources.filter(|(path, _)| EXCEPTIONS.iter().all(|(file, _)| file != path)) {
        let tokens = tokens(text);
        for at in 0..tokens.len() {
            if let Some(found) = page_arithmetic(&tokens[at..]) {
                breaches.push(Breach::new(path, tokens[at].line, found));
            }
        }
    }
    breaches
}

const SHIFT: u128 = 12;
const PAGE_SIZE: u128 = 1 << SHIFT;

/// What page arithmetic begins here, if any.
fn page_arithmetic(tokens: &[Token]) -> Option<String> {
    let first = tokens.first()?;
    if let Some(word @ ("PAGE_SHIFT" | "PAGE_MASK")) = first.word() {
        return Some(format!("`{word}`"));
    }
    if let Some(value) = first.value() {
        return is_page_mask(value).then(|| format!("the page mask {value:#x}"));
    }
    let operand = |at: usize| tokens.get(at).and_then(Token::value);
    let shift = |sign| {
        let twice = first.is_sign(sign) && tokens.get(1).is_some_and(|t| t.is_sign(sign) && t.joined);
        let assigns = usize::from(tokens.get(2).is_some_and(|t| t.is_sign('=')));
        twice && operand(2 + assigns) == Some(SHIFT)
    };
    if shift('<') || shift('>') {
        return Some("a shift by 12".into());
    }
    let scales = ['*', '/', '%'].into_iter().any(|sign| first.is_sign(sign)) && operand(1) == Some(PAGE_SIZE);
    scales.then(|| "a page number scaled by 4096".into())
}

/// The offset within a page, or everything but, in any width of address.
fn is_page_mask(value: u128) -> bool {
    let offset = PAGE_SIZE - 1;
    let widths = [32, 48, 52, 64].map(|width| ((1u128 << width) - 1) & !offset);
    value == offset || widths.contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> usize {
        breaches(&Tree::of(&[("oracles/src/x.rs", source)])).len()
    }

    #[test]
    fn page_arithmetic_is_caught_in_every_spelling() {
        for bad in [
            "fn f(a: u64) -> u64 { a << 12 }",
            "fn f(a: u64) -> u64 { a >> 0xc }",
            "fn f(mut a: u64) { a >>= 12u32; }",
            "fn f(a: u64) -> u64 { a & 0xfff }",
            "fn f(a: u64) -> u64 { a & !0xf_ff }",
            "fn f(a: u64) -> u64 { a & 4095 }",
            "fn f(a: u64) -> u64 { a & 0xffff_ffff_ffff_f000 }",
            "fn f(a: u64) -> u64 { a & 0x000f_ffff_ffff_f000 }",
            "fn f(a: u64) -> u64 { a >> gpa_model::addr::PAGE_SHIFT }",
            "fn f(a: u64) -> u64 { a / 4096 }",
        ] {
            assert_eq!(found(bad), 1, "{bad}");
        }
    }

    #[test]
    fn other_arithmetic_comments_and_strings_are_not() {
        assert_eq!(
            found("/* a << 12 */ fn f(a: u64) -> u64 { a << 13 | 0xffe } // 0xfff\n const S: &str = \"4095\";"),
            0
        );
        assert_eq!(found("fn f(x: Vec<Vec<u8>>) { let _: [u8; 12]; if a < 12 {} }"), 0);
    }

    #[test]
    fn the_address_file_may() {
        assert!(breaches(&Tree::of(&[("model/src/addr.rs", "fn f(a: u64) -> u64 { a >> 12 }")])).is_empty());
    }
}
