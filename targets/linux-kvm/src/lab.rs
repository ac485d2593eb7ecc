//! A lab: boots when it is first asked something, and again when the kernel in it has come to its end.

use crate::Setup;
use crate::emulator::{ANSWER_SECONDS, Emulator, Image, bochs, qemu};
use crate::image::{self, parts};
use crate::machine::console::{self, Complaint, Kind, complaint};
use crate::machine::snapshot::Place;
use crate::machine::{Machine, REARM, Silence};
use kernels::{Cache, Error, Kernel, Progress, protected, stolen};
use std::ops::Range;
use std::time::{Duration, Instant};

/// What the runner's first message begins with if it cannot do what was asked for.
const LACKING: &str = "lacking ";
/// The number of a block is that of its module, by name, and its distance from where the module starts, in so many bits.
const OFFSET_BITS: u32 = 24;

/// A function of one of KVM's modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its module.
    pub module: String,
    /// The file of the kernel's source that defines it, if that is known.
    pub file: Option<String>,
    /// The numbers of its blocks. They belong to no other function.
    pub blocks: Range<u32>,
}

/// Where a module of KVM lies in the machine's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleAt {
    /// Its name.
    pub name: String,
    /// Its first address.
    pub start: u64,
    /// How many bytes it is long.
    pub bytes: u64,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer; `None` if the machine hung or died over it.
    pub text: Option<String>,
    /// What the kernel has to complain about.
    pub complaint: Option<Complaint>,
}

/// A machine with Linux's KVM that carries out programs.
#[derive(Debug)]
pub struct Lab {
    kernel: Kernel,
    cache: Cache,
    image: Image,
    /// Where the state of the machine is kept once it is up.
    place: Option<Place>,
    emulator: Emulator,
    machine: Option<Machine>,
    modules: Vec<ModuleAt>,
    reclaims: Vec<String>,
    /// The log of the last boot.
    log: String,
    boots: u32,
    boot_time: Duration,
}

impl Lab {
    /// Prepare what `setup` needs, and boot it.
    ///
    /// # Errors
    /// [`Error::Absent`] if this machine lacks something that the lab needs.
    pub fn boot(setup: &Setup, progress: Progress<'_>) -> Result<Self, Error> {
        // Before anything is downloaded.
        setup.emulator.patience()?;
        let qemu = match setup.emulator {
            Emulator::Qemu => Some(qemu::version()?),
            Emulator::Bochs => bochs::check().map(|()| None)?,
        };
        let plugins = qemu.as_ref().and_then(|qemu| plugins(qemu, setup.watched, progress));
        let cache = Cache::of_user()?;
        let kernel = Kernel::find(&cache, &setup.kernel, progress)?;
        let instead = match setup.stolen {
            // A developer's kernel is taken as it is.
            None if kernel.is_packaged() && setup.alias_method.as_deref() == Some(protected::REALISATION) => {
                Some(kernels::build::modules(&cache, &kernel, protected::REALISATION, &protected::SCRIPT, progress)?)
            }
            None => None,
            Some((design, mutant)) => {
                let name = mutant.map_or_else(|| format!("{design:?}").to_lowercase(), |mutant| mutant.name.to_owned());
                Some(kernels::build::modules(
                    &cache,
                    &kernel,
                    &name,
                    &stolen::script(&kernel.version(), design, mutant),
                    progress,
                )?)
            }
        };
        let instead = instead.as_ref().map(|built| built.folder.as_path());
        let modules = kernel.modules(setup.emulator.modules(), instead)?;
        let runner = parts::runner(&cache, progress)?;
        let plugin = plugins.map(|version| parts::plugin(&cache, version, progress)).transpose()?;
        let (port, alias_method) = (setup.emulator.port(), setup.alias_method.as_deref());
        let (initrd, words) = image::initrd(&runner, &modules, &setup.parameters, port, alias_method);
        let image = Image { kernel: kernel.image()?.to_owned(), initrd, words, plugin };
        // Without a place for it nothing is kept.
        let place = qemu.and_then(|qemu| Place::of(&cache, &image, qemu.hardware()).ok());
        let (release, emulator) = (&kernel.release, setup.emulator.name());
        if place.as_ref().is_some_and(|place| place.find().is_some()) {
            progress(&format!("going on with Linux {release} in {emulator}, as it was once it was up"));
        } else {
            progress(&format!("booting Linux {release} in {emulator}, {}", setup.emulator.boots_in()));
        }
        let mut lab = Self {
            kernel,
            cache,
            image,
            place,
            emulator: setup.emulator,
            machine: None,
            modules: Vec::new(),
            reclaims: Vec::new(),
            log: String::new(),
            boots: 0,
            boot_time: Duration::ZERO,
        };
        lab.switch_on(progress)?;
        progress(&format!("up after {:.1} s", lab.boot_time.as_secs_f64()));
        Ok(lab)
    }

    fn switch_on(&mut self, progress: Progress<'_>) -> Result<(), Error> {
        let start = Instant::now();
        let mut new = None;
        let (machine, hello) = match self.resume(progress) {
            Some(up) => up,
            None => {
                new = self.place.as_ref().and_then(|place| place.begin().ok());
                Machine::boot(&self.image, self.emulator, progress)?
            }
        };
        self.boots += 1;
        self.boot_time = start.elapsed();
        if let Some(why) = hello.strip_prefix(LACKING) {
            return Err(Error::Absent(format!("inside the lab: {why}")));
        }
        (self.reclaims, self.modules) = first_message(&hello)
            .ok_or_else(|| Error::Failed(format!("expected the runner's first message, found `{hello}`")))?;
        let machine = self.machine.insert(machine);
        if let (Some(new), Some(place)) = (new, &self.place)
            && let Err(why) = machine.keep(&hello, new, place)
        {
            progress(&format!("its state cannot be kept, so the next one boots, too: {why}"));
            if !machine.answers() {
                return Err(Error::Failed(format!("the lab stopped when its state was to be kept: {why}")));
            }
        }
        // What it says while it boots is not about any program.
        machine.news();
        Ok(())
    }

    /// Go on with a machine that has come up before, if there is one and it answers.
    fn resume(&self, progress: Progress<'_>) -> Option<(Machine, String)> {
        let place = self.place.as_ref()?;
        match Machine::resume(&self.image, place.find()?) {
            Ok(up) => Some(up),
            Err(why) => {
                place.discard();
                progress(&format!("it does not go on as it was, so it boots: {why}"));
                None
            }
        }
    }

    /// Ask the runner inside. A kernel that came to its end at the last question is booted again first.
    ///
    /// # Errors
    /// If it cannot be booted.
    pub fn ask(&mut self, question: &str) -> Result<Answer, Error> {
        if self.machine.is_none() {
            self.switch_on(&mut |_| {})?;
        }
        let Some(machine) = &mut self.machine else { return Err(Error::Failed("the lab is off".into())) };
        let (answer, warned) = match machine.ask(question) {
            Ok(answer) => take_warnings(answer),
            Err(silence) => (Err(silence), 0),
        };
        let news = machine.news_after(warned);
        let said = complaint(&news, self.emulator.excused()).or_else(|| uncommented(&news, warned));
        let silence = |kind, line: &str| Complaint { kind, function: None, line: line.to_owned() };
        let (text, complaint) = match answer {
            Ok(text) => match failure(&text) {
                None => (Some(text), said),
                Some((kind, why)) => (None, said.or_else(|| Some(silence(kind, why)))),
            },
            Err(Silence::Hang(limit)) => {
                let why =
                    format!("no answer within {limit:?}; ${ANSWER_SECONDS} gives a kernel on a busy machine more");
                (None, said.or_else(|| Some(silence(Kind::Hang, &why))))
            }
            Err(Silence::Died(how)) => (None, said.or_else(|| Some(silence(Kind::Died, &how)))),
        };
        if let Some(complaint) = &complaint {
            self.log = machine.log();
            // A WARN_ONCE speaks once a boot, unless it is armed again.
            let again = complaint.kind.goes_on() && machine.ask(REARM).is_ok_and(|answer| answer == "done");
            if !again {
                self.machine = None;
            }
        }
        Ok(Answer { text, complaint })
    }

    /// Switch the machine off. It is booted again for the next question.
    pub fn switch_off(&mut self) {
        if let Some(mut machine) = self.machine.take() {
            self.log = machine.log();
        }
    }

    /// Whether the kernel runs; if not, it is booted for the next question.
    pub fn is_on(&self) -> bool {
        self.machine.is_some()
    }

    /// What the kernel has said: all of it if it runs, and what it said until the last complaint if not.
    pub fn log(&mut self) -> String {
        match &mut self.machine {
            Some(machine) => machine.log(),
            None => self.log.clone(),
        }
    }

    /// The blocks of KVM's modules that were executed for the last question: numbers that mean the same at each boot.
    pub fn blocks(&self, numbers: &mut Vec<u32>) {
        numbers.clear();
        let addresses = self.machine.iter().flat_map(Machine::blocks);
        numbers.extend(addresses.filter_map(|address| self.number(address)));
    }

    /// Whether they are watched.
    pub fn watches(&self) -> bool {
        self.image.plugin.is_some()
    }

    fn number(&self, address: u64) -> Option<u32> {
        let inside = |module: &ModuleAt| address.checked_sub(module.start).filter(|&offset| offset < module.bytes);
        let found = self.modules.iter().enumerate().find_map(|(at, module)| Some((at as u32, inside(module)?)));
        found.filter(|(_, offset)| offset >> OFFSET_BITS == 0).map(|(at, offset)| at << OFFSET_BITS | offset as u32)
    }

    /// The functions of KVM's modules, in the order of their blocks.
    ///
    /// # Errors
    /// If the lab fails, or the kernel's source cannot be fetched.
    pub fn functions(&mut self, progress: Progress<'_>) -> Result<Vec<Function>, Error> {
        if !self.watches() {
            return Ok(Vec::new());
        }
        let files = kernels::functions(&kernels::source(&self.cache, &self.kernel, progress)?)?;
        let list = self.ask("symbols")?.text.unwrap_or_default();
        let mut starts: Vec<(u32, &str)> = list
            .lines()
            .filter_map(|line| {
                let (address, name) = line.split_once(' ')?;
                Some((self.number(u64::from_str_radix(address, 16).ok()?)?, name))
            })
            .collect();
        starts.sort();
        // The padding before a function has a name of its own.
        starts.retain(|(_, name)| !name.starts_with("__pfx_"));
        // Two names for one place: the first stands for both.
        starts.dedup_by_key(|(start, _)| *start);
        let function = |(at, &(start, name)): (usize, &(u32, &str))| {
            let module = (start >> OFFSET_BITS) as usize;
            let limit = (module as u32 + 1) << OFFSET_BITS;
            let end = starts.get(at + 1).map_or(limit, |(next, _)| (*next).min(limit));
            let plain = name.split('.').next().unwrap_or(name);
            Function {
                name: name.to_owned(),
                module: self.modules[module].name.clone(),
                file: files.get(plain).cloned(),
                blocks: start..end,
            }
        };
        Ok(starts.iter().enumerate().map(function).collect())
    }

    /// What the kernel calls itself.
    pub fn release(&self) -> &str {
        &self.kernel.release
    }

    /// Where the modules of KVM lie.
    pub fn modules(&self) -> &[ModuleAt] {
        &self.modules
    }

    /// The means by which pages can be taken away inside, in the runner's words.
    pub fn reclaims(&self) -> &[String] {
        &self.reclaims
    }

    /// How often it was booted.
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// How long the last boot took, from power-on to the runner's first message.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }
}

/// The first number of the version of `qemu`, if it takes plugins and what the kernel executes is to be seen.
fn plugins(qemu: &qemu::Version, wanted: bool, progress: Progress<'_>) -> Option<u32> {
    if wanted && !qemu.plugins {
        let name = &qemu.name;
        progress(&format!("{name} takes no plugins, so what the kernel executes is not seen and guides nothing"));
    }
    (wanted && qemu.plugins).then_some(qemu.major)
}

/// Before the number of WARNs in an answer, in a line of its own.
const WARNED: &str = "warned ";

/// An answer without what it says of WARNs, and how often the kernel warned by that.
fn take_warnings(answer: String) -> (Result<String, Silence>, u64) {
    match answer.strip_prefix(WARNED).and_then(|rest| rest.split_once('\n')) {
        Some((count, rest)) if count.parse::<u64>().is_ok() => (Ok(rest.to_owned()), count.parse().unwrap_or(0)),
        _ => (Ok(answer), 0),
    }
}

/// A complaint if the kernel has counted WARNs of which its log has none: a kernel that words them as none did before.
fn uncommented(news: &str, warned: u64) -> Option<Complaint> {
    (warned > 0 && !console::warns(news)).then(|| Complaint {
        kind: Kind::Warn,
        function: None,
        line: format!("the kernel counts {warned} WARNs, and none can be read in its log"),
    })
}

/// What went wrong inside, if that is what the runner's answer says.
fn failure(answer: &str) -> Option<(Kind, &str)> {
    let of = |kind, word| answer.strip_prefix(word).map(|why| (kind, why));
    of(Kind::GuestHung, "hung ").or_else(|| of(Kind::Runner, "error "))
}

/// What the runner's first message says of drivers and of modules, these by name, so that numbers of blocks mean the same at each
/// boot.
fn first_message(hello: &str) -> Option<(Vec<String>, Vec<ModuleAt>)> {
    let rest = hello.strip_prefix("ready\ndrivers")?;
    let (reclaims, rest) = rest.split_once('\n')?;
    let module = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["module", name, start, bytes] => {
            let start = u64::from_str_radix(start.strip_prefix("0x")?, 16).ok()?;
            Some(ModuleAt { name: name.to_owned(), start, bytes: bytes.parse().ok()? })
        }
        _ => None,
    };
    let mut modules = rest.lines().map(module).collect::<Option<Vec<_>>>()?;
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    Some((reclaims.split_whitespace().map(str::to_owned).collect(), modules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_that_the_kernel_counts_are_a_complaint_even_if_its_log_has_none() {
        let (answer, warned) = take_warnings("warned 2\ngpafuzz-trace 1\n".into());
        assert_eq!((answer, warned), (Ok("gpafuzz-trace 1\n".into()), 2));
        let (answer, warned) = take_warnings("gpafuzz-trace 1\nwarned 2\n".into());
        assert_eq!((answer, warned), (Ok("gpafuzz-trace 1\nwarned 2\n".into()), 0));
        assert_eq!(uncommented("nothing", 2).map(|complaint| complaint.kind), Some(Kind::Warn));
        assert_eq!(uncommented("WARNING: a.c:1 at f+0x1/0x2, CPU#0: init/1\n", 2), None);
        assert_eq!(uncommented("nothing", 0), None);
    }

    #[test]
    fn the_first_message_says_where_modules_lie() {
        let kvm = ModuleAt { name: "kvm".into(), start: 0xffff_ffff_c010_0000, bytes: 77 };
        let hello = "ready\ndrivers fork cold\nmodule kvm 0xffffffffc0100000 77\n";
        assert_eq!(first_message(hello), Some((vec!["fork".into(), "cold".into()], vec![kvm])));
        let reclaims = "ready\ndrivers\n";
        for bad in
            ["".into(), "ready\n".into(), format!("{reclaims}module kvm 12 77\n"), format!("{reclaims}module kvm\n")]
        {
            assert_eq!(first_message(&bad), None, "{bad:?}");
        }
    }
}
