//! What a worker says of itself when it is ready: a few lines of text where answers are later.
//!
//! ```text
//! kvm-ko 1
//! about Linux 6.12.117+deb12-amd64, kvm_amd, nested paging, TDP MMU
//! aliases slots
//! stolen 39 46
//! kinds slot-create slot-delete read write
//! can slot-halves internal-slots
//! shows tables flushes
//! ```

use super::VERSION;
use crate::abilities::Abilities;
use crate::alias_method::AliasMethod;
use gpa_model::{Capabilities, OpKind, OpKinds};

/// A worker that is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// What it is, in a line.
    pub about: String,
    /// How the aliases of programs come about there.
    pub alias_method: AliasMethod,
    /// What it can carry out, and show.
    pub abilities: Abilities,
}

const MARK: &str = "kvm-ko";

fn can(abilities: &mut Abilities) -> [(&'static str, &mut bool); 5] {
    [
        ("slot-halves", &mut abilities.slot_halves),
        ("unmap-halves", &mut abilities.unmap_halves),
        ("internal-slots", &mut abilities.internal_slots),
        ("strides", &mut abilities.strides),
        ("dirty-rings", &mut abilities.dirty_rings),
    ]
}

fn shown(shows: &mut Capabilities) -> [(&'static str, &mut bool); 7] {
    [
        ("tables", &mut shows.tables),
        ("flushes", &mut shows.flushes),
        ("keys", &mut shows.keys),
        ("rmap", &mut shows.rmap),
        ("roots", &mut shows.roots),
        ("shadows", &mut shows.shadows),
        ("pins", &mut shows.pins),
    ]
}

/// The words whose flag is set.
fn words<const N: usize>(flags: &[(&'static str, &mut bool); N]) -> String {
    flags.iter().filter(|(_, set)| **set).map(|(word, _)| format!(" {word}")).collect()
}

/// Set the flags that `words` name; `None` if one is of no flag.
fn set<const N: usize>(mut flags: [(&'static str, &mut bool); N], words: &str) -> Option<()> {
    words.split_whitespace().try_for_each(|word| {
        let (_, flag) = flags.iter_mut().find(|(name, _)| *name == word)?;
        **flag = true;
        Some(())
    })
}

impl Hello {
    /// As text.
    pub fn print(&self) -> String {
        let mut abilities = self.abilities;
        let kinds = OpKind::ALL.into_iter().filter(|kind| abilities.kinds.contains(*kind));
        let kinds: String = kinds.map(|kind| format!(" {}", kind.name())).collect();
        let (low, high) = (abilities.stolen_low, abilities.stolen_high);
        format!(
            "{MARK} {VERSION}\nabout {}\naliases {}\nstolen {low} {high}\nkinds{kinds}\ncan{}\nshows{}\n",
            self.about,
            self.alias_method,
            words(&can(&mut abilities)),
            words(&shown(&mut abilities.shows)),
        )
    }

    /// The inverse of [`Hello::print`]; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| {
            let rest = lines.next()?.strip_prefix(name)?;
            rest.is_empty().then_some("").or_else(|| rest.strip_prefix(' '))
        };
        let mut hello = Self::default();
        field(MARK).filter(|version| version.parse() == Ok(VERSION))?;
        hello.about = field("about")?.to_owned();
        hello.alias_method = AliasMethod::named(field("aliases")?)?;
        let (low, high) = field("stolen")?.split_once(' ')?;
        let abilities = &mut hello.abilities;
        (abilities.stolen_low, abilities.stolen_high) = (low.parse().ok()?, high.parse().ok()?);
        for word in field("kinds")?.split_whitespace() {
            let kind = OpKind::ALL.into_iter().find(|kind| kind.name() == word)?;
            abilities.kinds = abilities.kinds.with(kind);
        }
        set(can(abilities), field("can")?)?;
        set(shown(&mut abilities.shows), field("shows")?)?;
        Some(hello)
    }
}

/// What a worker that can do everything here may say; tests start from it.
impl Hello {
    /// All ops, all of the kernel seen.
    pub fn of_everything(about: &str) -> Self {
        let shows = Capabilities { tables: true, flushes: true, keys: true, rmap: true, ..Capabilities::EXITS };
        let abilities = Abilities {
            kinds: OpKinds::of(&OpKind::ALL),
            slot_halves: true,
            unmap_halves: true,
            internal_slots: true,
            strides: true,
            dirty_rings: true,
            stolen_low: 39,
            stolen_high: 46,
            shows,
        };
        Self { about: about.to_owned(), alias_method: AliasMethod::default(), abilities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let mut hello = Hello::of_everything("Linux 6.12, nested paging");
        // The set of all kinds has bits of no kind.
        hello.abilities.kinds = OpKinds::of(&[OpKind::Read, OpKind::UnmapBegin]);
        hello.abilities.strides = false;
        assert_eq!(Hello::parse(&hello.print()), Some(hello.clone()));
        for (right, wrong) in
            [("kvm-ko 1", "kvm-ko 2"), ("read", "reed"), ("slots", "slotz"), ("46", "x"), ("shows", "")]
        {
            assert_eq!(Hello::parse(&hello.print().replace(right, wrong)), None, "{wrong}");
        }
    }
}
