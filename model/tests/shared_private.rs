//! Private and shared memory: a gfn has one kind at a time, each kind has its own page, and only its own address leads there.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::limits::FRAMES;
use gpa_model::{Aliasing, Entitled, Exit, Host, Model, Op, Pfn, Program, VmConfig, text};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Calls `check` in every state that programs drawn at random lead to, with the op that led there.
fn everywhere(mut check: impl FnMut(&Model, &Host, &Op)) {
    let profile = Profile { shared_private: 1, stolen_bits_max: 1, ..Profile::default() };
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let (generator, mut program) = (Generator::new(profile), Program::default());
    for _ in 0..2_000 {
        generator.program(&mut choices, &mut program);
        if !program.vm.shared_private() {
            continue;
        }
        let (mut model, mut host) = (Model::new(&program.vm), Host::new(&program.vm));
        for op in &program.ops {
            if model.accepts(&host, op) {
                host.apply(op);
                model.step(&host, op, &Exit::Retry);
                check(&model, &host, op);
            }
        }
    }
}

#[test]
fn a_gfn_has_one_kind_of_memory_at_a_time() {
    let (mut private, mut shared, mut converting) = (0, 0, 0);
    everywhere(|model, host, _| {
        let stolen = model.vm().stolen();
        for frame in 0..FRAMES {
            let of = |alias| model.entitled(host, frame, stolen.alias(alias));
            match (of(0), of(1)) {
                (Entitled::Memory(..), Entitled::OtherKind) => private += 1,
                (Entitled::OtherKind, Entitled::Memory(..)) => shared += 1,
                (Entitled::InFlux, Entitled::InFlux) => converting += 1,
                (Entitled::Memory(..) | Entitled::Hole, Entitled::Memory(..)) => panic!("frame {frame} has both kinds"),
                _ => {}
            }
        }
    });
    assert!(private > 1_000 && shared > 1_000 && converting > 1_000, "{private} {shared} {converting}");
}

#[test]
fn the_kinds_of_memory_share_no_page() {
    everywhere(|model, host, _| {
        let pages = |alias| (0..FRAMES).filter_map(move |frame| page(model, host, frame, alias));
        for private in pages(0) {
            assert!(pages(1).all(|shared| shared != private), "{private} is private and shared");
        }
    });
}

#[test]
fn a_hole_takes_private_pages_and_an_unmap_takes_shared_ones() {
    let (mut holes, mut unmaps) = (0, 0);
    let mut before: Vec<[Option<Pfn>; 2]> = Vec::new();
    everywhere(|model, host, op| {
        let pages: Vec<_> = (0..FRAMES).map(|frame| [0, 1].map(|alias| page(model, host, frame, alias))).collect();
        // In a new program no memslot is there, so nothing changes.
        if let Op::Unmap { by, .. } = op {
            for (old, new) in before.iter().zip(&pages).filter(|(_, new)| **new != [None; 2]) {
                let [private, shared] = [old[0] != new[0], old[1] != new[1]];
                assert!(if by.is_some() { !shared } else { !private }, "{old:?} became {new:?} by {op:?}");
                holes += usize::from(private);
                unmaps += usize::from(shared);
            }
        }
        before = pages;
    });
    assert!(holes > 100 && unmaps > 100, "{holes} {unmaps}");
}

fn page(model: &Model, host: &Host, frame: usize, alias: usize) -> Option<Pfn> {
    match model.entitled(host, frame, model.vm().stolen().alias(alias)) {
        Entitled::Memory(pfn, _) => Some(pfn),
        _ => None,
    }
}

#[test]
fn a_shared_bit_is_one_stolen_bit() {
    for stolen in ["none", "40,41"] {
        let program =
            format!("gpafuzz-program 1\nvm stolen={stolen} vcpus=1 base=0x1e0 flush=works aliasing=shared-private\n");
        let error = text::parse(&program).expect_err("a VM with a shared bit has one stolen bit").to_string();
        assert!(error.contains("the shared bit is the only one"), "{error}");
    }
    let vm = VmConfig::default().with_aliasing(Aliasing::SharedPrivate).expect("one stolen bit");
    let program = Program { vm, ..Program::default() };
    assert_eq!(text::parse(&text::print(&program)).as_ref(), Ok(&program));
}
