//! How a worker is set up: its arguments, and what it can do with them.

use gpa_model::{Capabilities, OpKind, OpKinds};
use kvm_ko::AliasMethod;
use kvm_ko::abilities::Abilities;
use kvm_ko::wire::Hello;
use kvm_ko_worker::kernel::{Options, Vendor};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the supervisor wants.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The folder with the modules and the C part.
    pub(crate) prepared: PathBuf,
    /// What the kernel calls itself.
    release: String,
    vendor: Vendor,
    mmu: MmuKind,
    pub(super) alias_method: AliasMethod,
    parameters: Vec<(String, String, u64)>,
    /// Functions of the kernel's that do nothing: planted faults.
    pub(crate) without: Vec<String>,
}

/// Before the name of a function that is to do nothing.
const WITHOUT: &str = "without-";

/// Which of KVM's MMUs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MmuKind {
    /// Nested tables, kept by the TDP MMU.
    Tdp,
    /// Nested tables, kept by the older one.
    Rmap,
    /// The guest's tables are shadowed.
    Shadow,
}

/// Bits of a physical address: more than any stolen bit needs, and few enough that reserved bits are left for MMIO entries.
pub(super) const PHYSICAL_BITS: u8 = 48;

impl Setup {
    /// What `arguments` say.
    ///
    /// # Errors
    /// Which of them is not understood, and what could stand there.
    pub(crate) fn of(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let prepared = PathBuf::from(arguments.next().ok_or("expected a folder with modules, found nothing")?);
        let mut words = arguments.map(|word| word.to_string_lossy().into_owned());
        let mut word = |what: &str| words.next().ok_or_else(|| format!("expected {what}, found nothing"));
        let release = word("the kernel's release")?;
        let vendor = match word("amd or intel")?.as_str() {
            "amd" => Vendor::Amd,
            "intel" => Vendor::Intel,
            other => return Err(format!("expected amd or intel, found `{other}`")),
        };
        let mmu = match word("tdp, rmap or shadow")?.as_str() {
            "tdp" => MmuKind::Tdp,
            "rmap" => MmuKind::Rmap,
            "shadow" => MmuKind::Shadow,
            other => return Err(format!("expected tdp, rmap or shadow, found `{other}`")),
        };
        let name = word("an alias method")?;
        let alias_method =
            AliasMethod::named(&name).ok_or_else(|| format!("expected slots or native, found `{name}`"))?;
        let parameter = |word: String| {
            let parts = word.split_once('=').and_then(|(name, value)| {
                let (module, name) = name.split_once('.')?;
                Some((module.to_owned(), name.to_owned(), value.parse().ok()?))
            });
            parts.ok_or_else(|| format!("expected MODULE.PARAMETER=NUMBER, found `{word}`"))
        };
        let (mut parameters, mut without) = (Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix(WITHOUT) {
                Some(function) => without.push(function.to_owned()),
                None => parameters.push(parameter(word)?),
            }
        }
        Ok(Self { prepared, release, vendor, mmu, alias_method, parameters, without })
    }

    /// How the kernel is loaded.
    pub(crate) fn options(&self) -> Options {
        Options {
            vendor: self.vendor,
            tdp: self.mmu != MmuKind::Shadow,
            tdp_mmu: self.mmu == MmuKind::Tdp,
            physical_bits: PHYSICAL_BITS,
            flush_backend: false,
            parameters: self.parameters.clone(),
        }
    }

    /// Whether there is an rmap.
    pub(super) fn has_rmap(&self) -> bool {
        self.mmu != MmuKind::Tdp
    }

    /// What the worker can do, and what it says of itself.
    pub(crate) fn hello(&self) -> Hello {
        let paging = match (self.mmu, self.vendor) {
            (MmuKind::Shadow, _) => "shadow paging",
            (_, Vendor::Amd) => "nested paging",
            (_, Vendor::Intel) => "EPT",
        };
        let mmu = if self.has_rmap() { "the MMU with an rmap" } else { "the TDP MMU" };
        let without: String = self.without.iter().map(|function| format!(", without {function}()")).collect();
        let about = format!("Linux {} in a process, {paging}, {mmu}{without}", self.release);
        let kinds = [
            OpKind::SlotCreate,
            OpKind::SlotDelete,
            OpKind::SlotMove,
            OpKind::SlotFlags,
            OpKind::Read,
            OpKind::Write,
            OpKind::Execute,
            OpKind::Prefault,
            OpKind::Age,
            OpKind::FaultBegin,
            OpKind::FaultEnd,
            OpKind::Unmap,
            OpKind::UnmapBegin,
            OpKind::UnmapEnd,
            OpKind::ProtNone,
            OpKind::DirtyGet,
            OpKind::DirtyClear,
            OpKind::WriteProtect,
            OpKind::WriteTrack,
            OpKind::WriteUntrack,
            OpKind::ZapBegin,
            OpKind::ZapEnd,
        ];
        let abilities = Abilities {
            kinds: OpKinds::of(&kinds),
            unmap_halves: true,
            internal_slots: true,
            shows: Capabilities {
                tables: true,
                flushes: true,
                keys: self.has_rmap(),
                rmap: self.has_rmap(),
                ..Capabilities::EXITS
            },
            ..Abilities::default()
        };
        Hello { about, alias_method: self.alias_method, abilities }
    }
}
