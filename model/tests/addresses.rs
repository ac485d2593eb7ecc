//! A frame and an alias are one GPA and back, wherever stolen bits may be; where they may not, they are refused.

use gpa_model::VmError;
use gpa_model::addr::StolenBitError;
use gpa_model::limits::{MAXPHYADDR_MAX, MAXPHYADDR_MIN, STOLEN_BITS};
use gpa_model::{Alias, BackendMode, Gfn, Gpa, Levels, StolenMask, VmConfig};

const LEGAL: std::ops::RangeInclusive<u8> = StolenMask::LOWEST_BIT..=StolenMask::HIGHEST_BIT;

/// Every legal set of up to three stolen bits.
fn masks() -> impl Iterator<Item = (Vec<u8>, StolenMask)> {
    let singles = LEGAL.map(|a| vec![a]);
    let pairs = LEGAL.flat_map(|a| (a + 1..=*LEGAL.end()).map(move |b| vec![a, b]));
    let triples = pairs.clone().flat_map(|pair| (pair[1] + 1..=*LEGAL.end()).map(move |c| vec![pair[0], pair[1], c]));
    let all = std::iter::once(Vec::new()).chain(singles).chain(pairs).chain(triples);
    all.map(|bits| {
        let mask = StolenMask::new(&bits).unwrap_or_else(|error| panic!("{bits:?}: {error}"));
        (bits, mask)
    })
}

#[test]
fn split_and_join_are_inverse_for_every_legal_mask() {
    let mut count = 0;
    for (bits, mask) in masks() {
        count += 1;
        assert_eq!((mask.bits(), mask.alias_count()), (&bits[..], 1 << bits.len()));
        for raw in [0, 1, 0x1e3, 0x1ff, 0x3fff] {
            // Frames whose number has one of the stolen bits do not exist in such a VM.
            let gfn = Gfn::new(raw);
            if mask.taints(raw) {
                continue;
            }
            for (index, alias) in mask.aliases().enumerate() {
                let gpa = mask.join(gfn, alias);
                assert_eq!(mask.split(gpa), (gfn, alias), "{bits:?}: {gpa:?}");
                assert_eq!((mask.alias(index), mask.alias_index(alias)), (alias, index), "{bits:?}");
                let set: u64 = bits.iter().enumerate().map(|(i, bit)| (index as u64 >> i & 1) << bit).sum();
                assert_eq!(
                    gpa.raw(),
                    Gpa::from_page(raw).raw() | set,
                    "{bits:?}: alias {index} is where hardware has it"
                );
            }
        }
    }
    assert_eq!(count, 1 + 36 + 630 + 7140);
}

#[test]
fn every_gpa_has_one_frame_and_one_alias() {
    for (bits, mask) in masks() {
        for raw in [0u64, 0x1e3_000, 0x1ff_000, (1 << 47) | 0x1e3_000, (1 << 57) - Gpa::from_page(1).raw()] {
            let (gfn, alias) = mask.split(Gpa::new(raw));
            assert_eq!(mask.join(gfn, alias).raw(), raw, "{bits:?}");
            assert!(!mask.taints(gfn.raw()), "{bits:?}: {gfn:?} carries a stolen bit");
        }
    }
}

#[test]
fn names_of_a_frame_are_as_many_as_aliases_and_all_different() {
    for (bits, mask) in masks() {
        let mut names: Vec<Gpa> = mask.aliases().map(|alias| mask.join(Gfn::new(0x1e3), alias)).collect();
        assert_eq!(names[0], Gpa::from_page(0x1e3), "{bits:?}: the base name comes first");
        names.sort();
        names.dedup();
        if !mask.taints(0x1e3) {
            assert_eq!(names.len(), mask.alias_count(), "{bits:?}");
        }
    }
}

#[test]
fn illegal_positions_are_refused_and_say_why() {
    for bit in 0..=u8::MAX {
        let expected = match bit {
            0..=20 => Err(StolenBitError::InsideLeafTable { bit, lowest: 21 }),
            21..=56 => Ok(1),
            _ => Err(StolenBitError::AboveRoot { bit, highest: 56 }),
        };
        assert_eq!(StolenMask::new(&[bit]).map(|mask| mask.bits().len()), expected);
        if LEGAL.contains(&bit) {
            assert_eq!(StolenMask::new(&[bit, bit]), Err(StolenBitError::Twice(bit)));
        }
    }
    assert_eq!(StolenMask::new(&[30, 31, 32, 33]), Err(StolenBitError::TooMany(STOLEN_BITS + 1)));
}

/// Both sides of the law: above all that a table of the largest leaves translates a bit is legal, below it is refused.
#[test]
fn a_stolen_bit_lies_above_every_table_of_leaves() {
    let plain = VmConfig::new(StolenMask::NONE, 1, Gfn::new(0), BackendMode::Works).unwrap();
    for stride in (0..=15).map(|shift| 1 << shift) {
        let vm = plain.with_frames(Gfn::new(0), stride).unwrap();
        let lowest = [21, 30, 39][vm.largest_leaf() as usize];
        let top = 64 * stride;
        for (bits, mask) in masks().filter(|(bits, _)| bits.len() == 1) {
            let expected = match bits[0] {
                bit if bit < lowest => Err(StolenBitError::InsideLeafTable { bit, lowest }),
                bit if mask.gfn_mask() < top => Err(StolenBitError::InsideFrames { bit }),
                _ => Ok(()),
            };
            assert_eq!(
                vm.with_stolen(mask).map(|_| ()),
                expected.map_err(VmError::Stolen),
                "{bits:?}, stride {stride}"
            );
        }
    }
}

#[test]
fn four_levels_translate_no_stolen_bit_from_48_on() {
    for bit in LEGAL {
        let vm = VmConfig::new(StolenMask::new(&[bit]).unwrap(), 1, Gfn::new(0x100), BackendMode::Works).unwrap();
        let five = bit > 47;
        assert_eq!(vm.levels() == Levels::Five, five, "as few levels as translate bit {bit}");
        let error = five.then_some(VmError::Stolen(StolenBitError::AboveRoot { bit, highest: 47 }));
        assert_eq!(vm.with_levels(Levels::Four).err(), error);
        assert_eq!(vm.with_levels(Levels::Five).map(|vm| vm.levels()), Ok(Levels::Five));
    }
}

#[test]
fn no_stolen_bit_is_reserved_wherever_physical_addresses_end() {
    for (bits, mask) in masks().filter(|(bits, _)| bits.len() < 3) {
        for maxphyaddr in MAXPHYADDR_MIN..=MAXPHYADDR_MAX {
            let reserved = mask.reserved_gpa_bits(maxphyaddr);
            for bit in 0..64u8 {
                let expected = bit >= maxphyaddr && !bits.contains(&bit);
                assert_eq!(reserved >> bit & 1 != 0, expected, "bit {bit}, {bits:?}, MAXPHYADDR {maxphyaddr}");
            }
        }
    }
    let vm = VmConfig::default();
    assert_eq!(vm.with_maxphyaddr(35), Err(VmError::Maxphyaddr(35)));
    assert_eq!(vm.with_maxphyaddr(53), Err(VmError::Maxphyaddr(53)));
}

#[test]
fn the_order_in_which_bits_are_given_does_not_matter() {
    let sorted = StolenMask::new(&[30, 40, 47]).unwrap();
    for bits in [[30, 47, 40], [40, 30, 47], [40, 47, 30], [47, 30, 40], [47, 40, 30]] {
        assert_eq!(StolenMask::new(&bits), Ok(sorted));
    }
}

#[test]
fn a_stolen_bit_is_never_an_address_bit_of_a_frame() {
    for (bits, mask) in masks().filter(|(bits, _)| bits.len() == 1) {
        for base in [0, 0x1c0, 0x1c1, 0x1e0, 0x3c0, 0x3c1, 0x3fc0] {
            let vm = VmConfig::new(mask, 1, Gfn::new(base), BackendMode::Works);
            let tainted = (0..64).any(|frame| mask.taints(base + frame));
            match vm {
                Ok(vm) => {
                    assert!(!tainted, "{bits:?}, base {base:#x}");
                    let located = vm.locate(vm.gpa(63, 1));
                    assert_eq!(located, Some((63, mask.alias(1))), "{bits:?}, base {base:#x}");
                }
                Err(error) => {
                    assert_eq!(error, VmError::Stolen(StolenBitError::InsideFrames { bit: bits[0] }));
                }
            }
        }
    }
    assert_eq!(Alias::NONE, StolenMask::NONE.alias(0));
}
