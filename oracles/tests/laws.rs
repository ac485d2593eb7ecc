//! Each law objects to the mistake that it is for, and to nothing that is right.

mod scripted;

use Answer::{FirstPage, Is, Mmio, Page};
use Do::{All, Free, Map, Range, Unmap};
use gpa_model::{Alias, Capabilities, Exit, FrameSet, GfnIndexed, Level, Rights};
use scripted::{ALL, Answer, DONE, Do, judge, judge_as};

const VM: &str = "vm stolen=40 vcpus=1 base=0x1e0 flush=works\n";
const RWX: Rights = Rights::RWX;
const SMALL: Level = Level::Page4K;

/// A memslot of four pages, with the first read by both names.
const READ: &str = "slot 0 create gfn=0x1e0 pages=4 hva=0\nv0 read 0x1e0\nv0 read 0x1e0@1\n";
const MAP: [(&[Do], Answer); 3] =
    [(&[], DONE), (&[Map("0x1e0", 0, RWX, SMALL)], Page(0)), (&[Map("0x1e0@1", 0, RWX, SMALL)], Page(0))];

fn program(ops: &str) -> String {
    format!("{VM}{ops}")
}

/// [`READ`] and one op more.
fn after_read(op: &str, acts: &[Do], answer: Answer) -> scripted::Verdict {
    let mut script = MAP.to_vec();
    script.push((acts, answer));
    judge(&program(&format!("{READ}{op}\n")), &script)
}

mod order {
    use super::*;

    const UNMAP: &str = "unmap hva=0 pages=1";

    #[test]
    fn a_flush_after_the_change_is_right() {
        let verdict = after_read(UNMAP, &[Unmap("0x1e0"), Unmap("0x1e0@1"), All], DONE);
        verdict.is_clean();
        assert_eq!(verdict.checked("alias_flush/order"), 2, "{:?}", verdict.at_stake());
    }

    #[test]
    fn a_flush_before_the_change_drops_nothing() {
        after_read(UNMAP, &[All, Unmap("0x1e0"), Unmap("0x1e0@1")], DONE).objects("alias_flush/order");
    }

    #[test]
    fn each_name_has_its_own_order() {
        let acts = [Unmap("0x1e0"), Range("0x1e0", 1), Range("0x1e0@1", 1), Unmap("0x1e0@1")];
        after_read(UNMAP, &acts, DONE).objects("alias_flush/order");
    }

    #[test]
    fn what_is_mapped_between_two_flushes_is_in_the_tlb() {
        // The right page is mapped with the right to write while the op protects it.
        let acts = [
            Map("0x1e0", 0, Rights::RX, SMALL),
            Map("0x1e0@1", 0, Rights::RX, SMALL),
            All,
            Map("0x1e0", 0, RWX, SMALL),
            Range("0x1e1", 1),
            Map("0x1e0", 0, Rights::RX, SMALL),
        ];
        after_read("write-protect gfn=0x1e0", &acts, DONE).objects("alias_flush/order");
    }

    #[test]
    fn no_flush_at_all_is_no_matter_of_order() {
        after_read(UNMAP, &[Unmap("0x1e0"), Unmap("0x1e0@1")], DONE).objects("alias_flush/stale-page");
    }

    #[test]
    fn where_the_order_is_not_shown_flushes_are_taken_to_follow() {
        let capabilities = Capabilities { order: false, ..ALL };
        let mut script = MAP.to_vec();
        script.push((&[All, Unmap("0x1e0"), Unmap("0x1e0@1")], DONE));
        judge_as(capabilities, &[], &program(&format!("{READ}{UNMAP}\n")), &script).is_clean();
    }
}

mod free {
    use super::*;

    const UNMAP: &str = "unmap hva=0 pages=1";

    /// For each name in turn: the entry, its flush, its table.
    #[test]
    fn the_table_of_each_name_may_go_after_its_own_flush() {
        let acts = [Unmap("0x1e0"), Range("0x1e0", 1), Free, Unmap("0x1e0@1"), Range("0x1e0@1", 1), Free];
        let verdict = after_read(UNMAP, &acts, DONE);
        verdict.is_clean();
        assert!(verdict.checked("alias_flush/free") > 0);
    }

    #[test]
    fn a_table_freed_before_the_flush_is_another_s() {
        let acts = [Unmap("0x1e0"), Unmap("0x1e0@1"), Free, All];
        after_read(UNMAP, &acts, DONE).objects("alias_flush/free");
    }

    #[test]
    fn the_second_free_is_judged_as_the_first() {
        let acts = [Unmap("0x1e0"), Range("0x1e0", 1), Free, Unmap("0x1e0@1"), Free, Range("0x1e0@1", 1)];
        after_read(UNMAP, &acts, DONE).objects("alias_flush/free");
    }
}

mod sizes {
    use super::*;

    const LARGE: Level = Level::Page2M;
    const VM: &str = "vm stolen=40 vcpus=1 base=0x40000 flush=works stride=256\n";
    const OPS: &str = "slot 0 create gfn=0x40000 pages=1024 hva=0\nv0 read 0x40000\nv0 read 0x40100\n";

    fn grows(flush: &[Do]) -> scripted::Verdict {
        let mut acts = vec![Map("0x40000", 0, RWX, LARGE), Map("0x40100", 0x100, RWX, LARGE)];
        acts.extend(flush);
        let script: [(&[Do], Answer); 3] =
            [(&[], DONE), (&[Map("0x40000", 0, RWX, SMALL)], Page(0)), (&acts, Page(0x100))];
        judge(&format!("{VM}{OPS}"), &script)
    }

    #[test]
    fn a_larger_leaf_in_place_of_a_table_owes_a_flush() {
        grows(&[]).objects("alias_flush/size");
    }

    #[test]
    fn the_flush_of_the_larger_leaf_is_enough() {
        let verdict = grows(&[Range("0x40000", 512)]);
        verdict.is_clean();
        assert!(verdict.checked("alias_flush/size") > 0);
    }

    /// A range flush that covers one page of a large leaf leaves the leaf in the TLB.
    #[test]
    fn a_large_leaf_outlives_the_flush_of_one_of_its_pages() {
        let ops = format!("{VM}{OPS}unmap hva=0 pages=256\n");
        let maps: &[Do] = &[Map("0x40000", 0, RWX, LARGE), Map("0x40100", 0x100, RWX, LARGE)];
        let judged = |flush: Do| {
            let acts = [Unmap("0x40000"), Unmap("0x40100"), flush];
            judge(&ops, &[(&[], DONE), (maps, Page(0)), (&[], Page(0x100)), (&acts, DONE)])
        };
        judged(Range("0x40000", 256)).objects("alias_flush/stale-page");
        judged(Range("0x40000", 512)).is_clean();
    }
}

mod shadowed {
    use super::*;

    /// Four tables that lead from gva 0.0.0.0 to gfn 0x1e8.
    const TABLES: &str = "slot 0 create gfn=0x1e0 pages=16 hva=0\n\
        v0 write-gpte 0x1e0 index=0 gpa=0x1e1 present writable user\n\
        v0 write-gpte 0x1e1 index=0 gpa=0x1e2 present writable user\n\
        v0 write-gpte 0x1e2 index=0 gpa=0x1e3 present writable user\n\
        v0 write-gpte 0x1e3 index=0 gpa=0x1e8 present writable user\n";
    const MAPS: [(&[Do], Answer); 5] = [
        (&[], DONE),
        (&[Map("0x1e0", 0, RWX, SMALL)], Page(0)),
        (&[Map("0x1e1", 1, RWX, SMALL)], Page(1)),
        (&[Map("0x1e2", 2, RWX, SMALL)], Page(2)),
        (&[Map("0x1e3", 3, RWX, SMALL)], Page(3)),
    ];
    const PROTECTED: [Do; 3] =
        [Map("0x1e0", 0, Rights::RX, SMALL), Map("0x1e1", 1, Rights::RX, SMALL), Map("0x1e2", 2, Rights::RX, SMALL)];

    fn run(ops: &str, rest: &[(&[Do], Answer)]) -> scripted::Verdict {
        let mut script = MAPS.to_vec();
        script.extend(rest);
        judge(&program(&format!("{TABLES}{ops}")), &script)
    }

    #[test]
    fn a_table_that_is_write_protected_owes_a_flush() {
        run("v0 guest-access read root=0x1e0 gva=0.0.0.0\n", &[(&PROTECTED, Page(8))])
            .objects("alias_flush/lost-write");
        let mut flushed = PROTECTED.to_vec();
        flushed.push(All);
        let verdict = run("v0 guest-access read root=0x1e0 gva=0.0.0.0\n", &[(&flushed, Page(8))]);
        verdict.is_clean();
        assert_eq!(verdict.checked("alias_flush/lost-write"), 3);
    }

    #[test]
    fn a_page_reached_by_a_virtual_address_is_flushed_when_it_is_taken_away() {
        let ops = "v0 guest-access read root=0x1e0 gva=0.0.0.0\nunmap hva=8 pages=1\n";
        run(ops, &[(&[], Page(8)), (&[], DONE)]).objects("alias_flush/virtual");
        let verdict = run(ops, &[(&[], Page(8)), (&[All], DONE)]);
        verdict.is_clean();
        assert_eq!(verdict.checked("alias_flush/virtual"), 1);
        // By the guest physical page that it was made of, under any name.
        run(ops, &[(&[], Page(8)), (&[Range("0x1e8@1", 1)], DONE)]).is_clean();
        run(ops, &[(&[], Page(8)), (&[Range("0x1e9", 1)], DONE)]).objects("alias_flush/virtual");
    }

    #[test]
    fn a_write_by_a_virtual_address_is_flushed_when_writes_are_logged_again() {
        let ops = "v0 guest-access write root=0x1e0 gva=0.0.0.0\nwrite-protect gfn=0x1e8\n";
        run(ops, &[(&[], Page(8)), (&[], DONE)]).objects("alias_flush/virtual");
        run(ops, &[(&[], Page(8)), (&[Range("0x1e8", 1)], DONE)]).is_clean();
        let read = ops.replace("guest-access write", "guest-access read");
        run(&read, &[(&[], Page(8)), (&[], DONE)]).is_clean();
    }

    /// The entry of gva 0.0.0.1 changes; then the table above is linked at another place.
    const LINKED_LATER: &str = "v0 write-gpte 0x1e3 index=1 gpa=0x1e9 present writable user\n\
        v0 guest-access read root=0x1e0 gva=0.0.0.1\n\
        v0 write-gpte 0x1e3 index=1 gpa=0x1ea present writable user\n\
        v0 write-gpte 0x1e1 index=1 gpa=0x1e2 present writable user\n";

    fn linked_later(access: &str, answer: Answer) -> scripted::Verdict {
        let writes: [(&[Do], Answer); 4] = [(&[], Page(3)), (&[], Page(9)), (&[], Page(3)), (&[], Page(1))];
        let mut script = writes.to_vec();
        script.push((&[], answer));
        run(&format!("{LINKED_LATER}{access}\n"), &script)
    }

    #[test]
    fn an_old_entry_may_be_met_by_a_way_that_was_there() {
        linked_later("v0 guest-access read root=0x1e0 gva=0.0.0.1", Page(9)).is_clean();
        linked_later("v0 guest-access read root=0x1e0 gva=0.0.0.1", Page(10)).is_clean();
    }

    #[test]
    fn an_old_entry_is_not_met_by_a_way_that_was_linked_later() {
        linked_later("v0 guest-access read root=0x1e0 gva=0.1.0.1", Page(9)).objects("gfn_unalias/exit");
        linked_later("v0 guest-access read root=0x1e0 gva=0.1.0.1", Page(10)).is_clean();
    }

    #[test]
    fn the_same_holds_for_a_table_of_leaves_at_a_second_place() {
        let ops = LINKED_LATER.replace("0x1e1 index=1 gpa=0x1e2", "0x1e2 index=1 gpa=0x1e3");
        let writes: [(&[Do], Answer); 4] = [(&[], Page(3)), (&[], Page(9)), (&[], Page(3)), (&[], Page(2))];
        let end = |answer| {
            let mut script = writes.to_vec();
            script.push((&[], answer));
            run(&format!("{ops}v0 guest-access read root=0x1e0 gva=0.0.1.1\n"), &script)
        };
        end(Page(9)).objects("gfn_unalias/exit");
        end(Page(10)).is_clean();
    }
}

mod ageing {
    use super::*;

    fn aged(ops: &str, rest: &[(&[Do], Answer)]) -> scripted::Verdict {
        let mut script = MAP.to_vec();
        script.extend(rest);
        judge(&program(&format!("{READ}{ops}")), &script)
    }

    const TWICE: &str = "age hva=0 pages=1\nage hva=0 pages=1\n";
    const YOUNG: Answer = Is(Exit::Young(true));
    const IDLE: Answer = Is(Exit::Young(false));

    #[test]
    fn what_was_aged_is_idle_until_it_is_accessed() {
        let verdict = aged(TWICE, &[(&[], YOUNG), (&[], IDLE)]);
        verdict.is_clean();
        assert_eq!(verdict.checked("gfn_unalias/idle"), 1);
        aged(TWICE, &[(&[], YOUNG), (&[], YOUNG)]).objects("gfn_unalias/idle");
    }

    #[test]
    fn an_access_makes_it_young_again() {
        let ops = "age hva=0 pages=1\nv0 read 0x1e0@1\nage hva=0 pages=1\n";
        aged(ops, &[(&[], YOUNG), (&[], Page(0)), (&[], YOUNG)]).is_clean();
        aged(ops, &[(&[], YOUNG), (&[], Page(0)), (&[], IDLE)]).objects("gfn_unalias/age");
    }

    #[test]
    fn what_was_not_aged_may_be_young() {
        let ops = "age hva=0 pages=1\nage hva=0 pages=2\n";
        let verdict = aged(ops, &[(&[], YOUNG), (&[], YOUNG)]);
        verdict.is_clean();
        assert_eq!(verdict.checked("gfn_unalias/idle"), 0);
    }
}

mod flux {
    use super::*;

    const RETRY: Answer = Is(Exit::Retry);
    /// A window over the first two of eight pages.
    const WINDOW: &str = "slot 0 create gfn=0x1e0 pages=8 hva=0\nunmap-begin w0 hva=0 pages=2\n";

    fn windowed(op: &str, answer: Answer) -> scripted::Verdict {
        judge(&program(&format!("{WINDOW}{op}\n")), &[(&[], DONE), (&[], DONE), (&[], answer)])
    }

    #[test]
    fn an_access_is_retried_where_its_page_is_in_flux_and_nowhere_else() {
        windowed("v0 read 0x1e1@1", RETRY).is_clean();
        windowed("v0 read 0x1e4@1", RETRY).objects("progress/retry");
    }

    #[test]
    fn a_legal_retry_is_not_counted() {
        assert_eq!(windowed("v0 read 0x1e1@1", RETRY).checked("progress/retry"), 0);
    }

    /// KVM keeps one range for all invalidations in progress, until none is.
    #[test]
    fn what_lies_between_two_invalidations_is_retried_until_both_have_ended() {
        let ops = "slot 0 create gfn=0x1e0 pages=8 hva=0\nunmap-begin w0 hva=0 pages=1\n\
            unmap-begin w1 hva=6 pages=1\nv0 read 0x1e3\nunmap-end w1\nv0 read 0x1e3\nunmap-end w0\nv0 read 0x1e3\n";
        let script = [
            (&[] as &[Do], DONE),
            (&[], DONE),
            (&[], DONE),
            (&[], RETRY),
            (&[], DONE),
            (&[], RETRY),
            (&[], DONE),
            (&[], RETRY),
        ];
        let verdict = judge(&program(ops), &script);
        verdict.objects("progress/retry");
        assert_eq!(verdict.violation.map(|violation| violation.at), Some(7));
    }

    #[test]
    fn a_request_that_only_a_signal_ends_needs_something_in_flux() {
        let ops = "slot 0 create gfn=0x1e0 pages=8 hva=0\nv0 prefault 0x1e1\n";
        let interrupted = Is(Exit::Interrupted);
        judge(&program(ops), &[(&[], DONE), (&[], interrupted)]).objects("progress/interrupted");
        windowed("v0 prefault 0x1e1", interrupted).is_clean();
        let verdict = judge(&program(ops), &[(&[], DONE), (&[Map("0x1e1", 1, RWX, SMALL)], DONE)]);
        assert_eq!(verdict.checked("progress/interrupted"), 1);
    }
}

mod exits {
    use super::*;

    #[test]
    fn user_space_is_told_the_address_that_was_accessed() {
        let vm = VM.replace("stolen=40", "stolen=40,41");
        let told = |answer| judge(&format!("{vm}v0 read 0x1e0@1\n"), &[(&[], answer)]);
        told(Mmio("0x1e0@1")).is_clean();
        told(Mmio("0x1e0@2")).objects("private_slot/alias-exit");
        told(Mmio("0x1e0")).objects("private_slot/alias-exit");
        told(Mmio("0x1e1@1")).objects("private_slot/alias-exit");
    }

    #[test]
    fn what_was_done_is_allowed_by_what_is_mapped() {
        let slot = "slot 0 create gfn=0x1e0 pages=4 hva=0\n";
        let mapped = |access: &str, rights| {
            let acts = [Map("0x1e1@1", 1, rights, SMALL)];
            judge(&program(&format!("{slot}v0 {access} 0x1e1@1\n")), &[(&[], DONE), (&acts, Page(1))])
        };
        mapped("write", Rights::RX).objects("progress/rights");
        mapped("execute", Rights::R.union(Rights::W)).objects("progress/rights");
        mapped("write", RWX).is_clean();
        mapped("read", Rights::R).is_clean();
        assert_eq!(mapped("write", RWX).checked("progress/rights"), 1);
        assert_eq!(mapped("read", RWX).checked("progress/rights"), 0);
    }

    #[test]
    fn an_aliased_prefault_is_refused_only_by_a_design_that_says_so() {
        let ops = "slot 0 create gfn=0x1e0 pages=4 hva=0\nv0 prefault 0x1e1@1\n";
        let refused = [(&[] as &[Do], DONE), (&[], Is(Exit::Refused))];
        judge(&program(ops), &refused).objects("gfn_unalias/exit");
        let declared = Capabilities { refuses_aliased_prefault: true, ..ALL };
        judge_as(declared, &[], &program(ops), &refused).is_clean();
        let base = ops.replace("@1", "");
        judge_as(declared, &[], &program(&base), &refused).objects("gfn_unalias/exit");
    }

    /// A runner with a memslot for each name decides itself that an alias of a hole is one.
    #[test]
    fn aliases_that_the_runner_makes_say_nothing_about_the_mmu() {
        let op = program("v0 read 0x1e0@1\n");
        let made = Capabilities { own_aliases: false, ..ALL };
        assert_eq!(judge_as(made, &[], &op, &[(&[], Mmio("0x1e0@1"))]).checked("private_slot/alias-exit"), 0);
        assert_eq!(judge(&op, &[(&[], Mmio("0x1e0@1"))]).checked("private_slot/alias-exit"), 1);
    }

    #[test]
    fn the_log_has_nothing_that_was_not_touched() {
        let ops = "slot 0 create gfn=0x1e0 pages=4 hva=0 log-dirty\ndirty-get 0\n";
        let report = |frames| judge(&program(ops), &[(&[], DONE), (&[], Is(Exit::Dirty(frames)))]);
        report(FrameSet::one(1)).objects("dirty_log/excess");
        report(FrameSet::EMPTY).is_clean();
    }

    #[test]
    fn an_old_page_is_not_reached_after_it_was_taken_away() {
        let exits = Capabilities::EXITS;
        let ops = program(&format!("{READ}unmap hva=0 pages=1\nv0 read 0x1e0@1\n"));
        let end = |answer| {
            let script = [(&[] as &[Do], DONE), (&[], Page(0)), (&[], Page(0)), (&[], DONE), (&[], answer)];
            judge_as(exits, &[], &ops, &script)
        };
        end(FirstPage(0)).objects("alias_flush/stale-access");
        end(Page(0)).is_clean();
    }
}

mod keys {
    use super::*;

    const NX: GfnIndexed = GfnIndexed::NxSplit { gfn: 0x1e0, alias: Alias::NONE, level: 1 };
    const PAGE: GfnIndexed = GfnIndexed::direct_page(0x1e0, Alias::NONE, 1);

    fn keeps(keys: &[GfnIndexed]) -> scripted::Verdict {
        judge_as(ALL, keys, &program("backend works\n"), &[(&[], DONE)])
    }

    #[test]
    fn a_page_to_be_recovered_is_listed_once() {
        keeps(&[PAGE, NX]).is_clean();
        keeps(&[PAGE, NX, NX]).objects("structure/nx-split");
        keeps(&[NX]).objects("structure/nx-split");
        keeps(&[PAGE, PAGE]).objects("structure/unique");
    }

    /// The rmap lists the leaf twice.
    #[test]
    fn a_leaf_is_in_the_rmap_once() {
        let rmap = Capabilities { rmap: true, ..ALL };
        let gpa = gpa_model::Gpa::from_page(0x1e0);
        let listed = GfnIndexed::Rmap { gfn: 0x1e0, gpa, level: SMALL, idle: false };
        let ops = program("slot 0 create gfn=0x1e0 pages=4 hva=0\nv0 read 0x1e0\n");
        let script: [(&[Do], Answer); 2] = [(&[], DONE), (&[Map("0x1e0", 0, RWX, SMALL)], Page(0))];
        judge_as(rmap, &[listed], &ops, &script).is_clean();
        judge_as(rmap, &[listed, listed], &ops, &script).objects("structure/rmap");
        judge_as(rmap, &[], &ops, &script).objects("structure/rmap");
    }
}

/// Ops that change nothing here and answers that leave nothing to judge count for nothing.
#[test]
fn ops_without_effect_are_at_stake_nowhere() {
    let ops = "backend works\nmmu-pages 8\nunmap hva=0 pages=1\nage hva=0 pages=1\nzap-begin gfn=0x1e0 pages=1 yield=1\n\
        zap-end\nslot 0 create gfn=0x1e0 pages=4 hva=0\nslot 0 delete\nmemory-type gfn=0x1e0 pages=1 uncacheable\n";
    let mut script = vec![(&[] as &[Do], DONE); 9];
    script[3].1 = Is(Exit::Young(false));
    let verdict = judge(&program(ops), &script);
    verdict.is_clean();
    assert_eq!(verdict.at_stake(), Vec::<&str>::new());
}
