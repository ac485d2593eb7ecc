//! `gpafuzz walk`: a real page walker and a real TLB judge the tables of `kvm-mmu`.

use super::{CliError, EXIT_CODES, Exit};
use crate::target::TargetError;
use crate::terminal::interrupt;
use crate::terminal::print;
use crate::walk::{Counts, MMIO_BIT, Walk, Wrong, profile};
use clap::Args;
use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_model::{Program, text};
use hw_runner::{MachineError, Walker};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Use the tables of `kvm-mmu` as page tables of a guest on /dev/kvm, so that a real page walker and a real TLB judge them.
///
/// Each program is walked twice. With all invalidations, no name may lead to an old page. The control leaves one invalidation of
/// each op out: if no old page shows there either, the flushes were not judged, and the exit status is 3 (vacuous).
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct WalkArgs {
    /// Programs
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What this is called where it cannot be had.
const NAME: &str = "walk";

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if there is no guest here whose page tables are walked natively.
pub fn run(args: &WalkArgs) -> Result<Exit, CliError> {
    let (stop, start) = (interrupt::listen().map_err(CliError::Signal)?, Instant::now());
    let walked = walk(args, false, stop)?;
    let seconds = start.elapsed().as_secs_f64();
    let Counts { programs, cut_short, entitled, foreign, flushed, .. } = walked.counts;
    print(&format!(
        "{programs} programs, seed {}, {:.0} programs/s; {cut_short} left early for want of room in the guest\n\
         entitled  {entitled} names lead to their page, by a read and by a write\n\
         foreign   {foreign} names lead nowhere\n\
         flushed   {flushed} names lead elsewhere since an op, and none to the old page\n",
        args.seed,
        programs as f64 / seconds
    ));
    if let Some((program, wrong)) = walked.wrong {
        print(&format!("wrong     {wrong}\n\n{}", text::print(&program)));
        return Ok(Exit::Findings);
    }
    let control = walk(args, true, stop)?;
    let Counts { forgotten, stale, .. } = control.counts;
    print(&format!(
        "control   {forgotten} names whose INVLPG was left out, {stale} of which lead to the old page\n\
         witness   {}\n",
        walked.witness
    ));
    if let Some((program, wrong)) = control.wrong {
        print(&format!("wrong     {wrong}\n\n{}", text::print(&program)));
        return Ok(Exit::Findings);
    }
    teeth(&control.counts)?;
    Ok(Exit::Clean)
}

/// That a flush which is missing shows here at all; otherwise that none was stale says nothing.
fn teeth(control: &Counts) -> Result<(), TargetError> {
    if control.stale > 0 {
        return Ok(());
    }
    let why = format!(
        "vacuous: expected some name to lead to the old page while its INVLPG is left out, found none of {}; nothing is cached here \
         for that long, or there were too few programs: try more --runs",
        control.forgotten
    );
    Err(TargetError::Absent { name: NAME, why })
}

struct Walked {
    counts: Counts,
    wrong: Option<(Program, Wrong)>,
    /// What KVM counted meanwhile.
    witness: String,
}

fn walk(args: &WalkArgs, forgetful: bool, stop: &AtomicBool) -> Result<Walked, CliError> {
    let walker = Walker::open().map_err(|error| unusable(&error))?;
    let maxphyaddr = walker.fingerprint().maxphyaddr;
    if maxphyaddr > MMIO_BIT {
        let why =
            format!("expected a MAXPHYADDR of at most {MMIO_BIT}, so that entries for MMIO fault, found {maxphyaddr}");
        return Err(TargetError::Absent { name: NAME, why }.into());
    }
    let before = walker.witness();
    let (mut walk, mut wrong) = (Walk::new(walker, forgetful), None);
    let (generator, mut program) = (Generator::new(profile()), Program::default());
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(args.seed));
    for _ in 0..args.runs {
        generator.program(&mut choices, &mut program);
        wrong = walk.run(&program).map_err(|error| unusable(&error))?;
        if wrong.is_some() || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let after = walk.walker().witness();
    // Where the guest is emulated as a whole, no page is mapped for it, and none of this went through an MMU.
    if after.get("pf_fixed").is_none_or(|fixed| Some(fixed) == before.get("pf_fixed")) {
        let why = format!("expected a guest that runs natively, found no sign of it: {}", after.show_since(&before));
        return Err(TargetError::Absent { name: NAME, why }.into());
    }
    Ok(Walked {
        counts: *walk.counts(),
        wrong: wrong.map(|wrong| (program, wrong)),
        witness: after.show_since(&before).to_string(),
    })
}

fn unusable(error: &MachineError) -> TargetError {
    if error.is_absence() {
        TargetError::Absent { name: NAME, why: error.to_string() }
    } else {
        TargetError::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_that_shows_no_old_page_is_vacuous_and_no_success() {
        assert_eq!(teeth(&Counts { forgotten: 9, stale: 1, ..Counts::default() }), Ok(()));
        for forgotten in [0, 9] {
            let error = teeth(&Counts { forgotten, stale: 0, ..Counts::default() }).expect_err("nothing was seen");
            let said = format!("found none of {forgotten};");
            assert!(error.to_string().contains("vacuous") && error.to_string().contains(&said), "{error}");
        }
    }
}
