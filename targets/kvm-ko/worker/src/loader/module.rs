//! One ELF object: its sections, its symbols, its relocations.
//!
//! UNSAFETY: writes the sections, which lie where [`super::low`] or the per-CPU area has room.

#![expect(unsafe_code, reason = "writes the sections of modules")]

use super::low::Low;
use super::symbols::Symbols;
use crate::kernel::LoadError;
use crate::memory::{percpu, physical};
use object::elf;
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};
use object::{LittleEndian as LE, SymbolIndex};
use std::collections::BTreeMap;

type Header = elf::FileHeader64<LE>;

/// A section that is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Where it begins.
    pub(crate) at: u64,
    /// Bytes.
    pub(crate) size: u64,
}

/// A module, laid out.
#[derive(Debug)]
pub(crate) struct Module {
    /// As `kvm`.
    pub(crate) name: String,
    file: Vec<u8>,
    /// Where each section lies, by its index.
    at: Vec<u64>,
    /// Loaded sections by name.
    sections: BTreeMap<String, Section>,
    /// Symbols with an address, local ones too, and their sizes.
    local: BTreeMap<String, (u64, u64)>,
    /// Functions by address, with their size.
    pub(crate) functions: BTreeMap<u64, (String, u64)>,
    percpu: Vec<usize>,
}

/// Lay `file` out, and tell `symbols` what it defines for all.
pub(crate) fn place(name: &str, file: Vec<u8>, low: &mut Low, symbols: &mut Symbols) -> Result<Module, LoadError> {
    let wrong =
        |what: object::Error| LoadError(format!("{name}: expected a relocatable ELF object for x86-64, found: {what}"));
    let header = Header::parse(&*file).map_err(wrong)?;
    if header.e_machine(LE) != elf::EM_X86_64 || header.e_type(LE) != elf::ET_REL {
        return Err(LoadError(format!("{name}: expected a relocatable ELF object for x86-64, found another")));
    }
    let sections = header.sections(LE, &*file).map_err(wrong)?;
    let mut module = Module {
        name: name.to_owned(),
        file: Vec::new(),
        at: vec![0; sections.len()],
        sections: BTreeMap::new(),
        local: BTreeMap::new(),
        functions: BTreeMap::new(),
        percpu: Vec::new(),
    };
    for (index, section) in sections.enumerate() {
        if !section.sh_flags(LE).contains(elf::SHF_ALLOC) {
            continue;
        }
        let title = String::from_utf8_lossy(sections.section_name(LE, section).map_err(wrong)?).into_owned();
        let (size, align) = (section.sh_size(LE), section.sh_addralign(LE));
        let data = section.data(LE, &*file).map_err(wrong)?;
        let in_percpu = title.starts_with(".data..percpu");
        let at = if in_percpu { percpu::alloc(size, align) } else { low.alloc(size, align) };
        let address = if in_percpu { percpu::base() + at } else { at };
        // A section of zeros has no data in the file, and the room is zeroed.
        Low::copy(address, data);
        module.at[index.0] = at;
        if in_percpu {
            module.percpu.push(index.0);
        }
        module.sections.entry(title).or_insert(Section { at, size });
    }
    let table = sections.symbols(LE, &*file, elf::SHT_SYMTAB).map_err(wrong)?;
    for (_, symbol) in table.enumerate() {
        let index = symbol.st_shndx(LE);
        if index == elf::SHN_COMMON {
            return Err(LoadError(format!("{name}: expected no common symbols, found one")));
        }
        let base = index.index().and_then(|index| module.at.get(usize::from(index)).copied());
        let Some(base) = base.or((index == elf::SHN_ABS).then_some(0)) else { continue };
        let title = String::from_utf8_lossy(table.symbol_name(LE, symbol).map_err(wrong)?).into_owned();
        let address = base + symbol.st_value(LE);
        if symbol.st_type() == elf::STT_FUNC {
            module.functions.insert(address, (title.clone(), symbol.st_size(LE)));
        }
        if symbol.st_bind() != elf::STB_LOCAL {
            symbols.define(&title, address, symbol.st_bind() == elf::STB_WEAK);
        }
        module.local.insert(title, (address, symbol.st_size(LE)));
    }
    module.file = file;
    Ok(module)
}

impl Module {
    /// Where the symbol `name` lies, a local one too.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.local.get(name).map(|(address, _)| *address)
    }

    /// How many bytes the symbol `name` has.
    pub(crate) fn size_of(&self, name: &str) -> u64 {
        self.local.get(name).map_or(0, |(_, size)| *size)
    }

    /// The loaded section `name`.
    pub(crate) fn section(&self, name: &str) -> Option<Section> {
        self.sections.get(name).copied()
    }

    /// The function that `address` is in, and how far.
    pub(crate) fn function_at(&self, address: u64) -> Option<(&str, u64)> {
        let (start, (name, size)) = self.functions.range(..=address).next_back()?;
        (address < start + (*size).max(1)).then(|| (name.as_str(), address - start))
    }

    /// Put addresses where the code and data refer to symbols.
    pub(crate) fn relocate(&self, low: &mut Low, symbols: &mut Symbols) -> Result<(), LoadError> {
        let wrong = |what: object::Error| LoadError(format!("{}: {what}", self.name));
        let header = Header::parse(&*self.file).map_err(wrong)?;
        let sections = header.sections(LE, &*self.file).map_err(wrong)?;
        let table = sections.symbols(LE, &*self.file, elf::SHT_SYMTAB).map_err(wrong)?;
        for section in sections.iter() {
            let Some((relocations, _)) = section.rela(LE, &*self.file).map_err(wrong)? else { continue };
            let target = section.info_link(LE);
            let into = sections.section(target).map_err(wrong)?;
            if !into.sh_flags(LE).contains(elf::SHF_ALLOC) {
                continue;
            }
            let base = self.at[target.0] + if self.percpu.contains(&target.0) { percpu::base() } else { 0 };
            for relocation in relocations {
                let symbol = table.symbol(SymbolIndex(relocation.r_sym(LE, false) as usize)).map_err(wrong)?;
                let name = String::from_utf8_lossy(table.symbol_name(LE, symbol).map_err(wrong)?);
                let index = symbol.st_shndx(LE);
                let at = base + relocation.r_offset(LE);
                if removed(at, &name) {
                    continue;
                }
                let value = match index.index() {
                    Some(index) => self.at[usize::from(index)] + symbol.st_value(LE),
                    None if index == elf::SHN_ABS => symbol.st_value(LE),
                    None => symbols.resolve(&name, low),
                };
                self.apply(
                    relocation.r_type(LE, false),
                    at,
                    value.wrapping_add_signed(relocation.r_addend(LE)),
                    &name,
                )?;
            }
        }
        Ok(())
    }

    fn apply(&self, kind: elf::RelocationType, at: u64, value: u64, name: &str) -> Result<(), LoadError> {
        let distance = value.wrapping_sub(at) as i64;
        let far = || LoadError(format!("{}: expected {name} within reach of its use, found {value:#x}", self.name));
        // SAFETY: in a section of this module.
        unsafe {
            match kind {
                elf::R_X86_64_NONE => {}
                elf::R_X86_64_64 => physical::write(at, value),
                elf::R_X86_64_32 => physical::write(at, u32::try_from(value).map_err(|_| far())?),
                elf::R_X86_64_32S => physical::write(at, i32::try_from(value as i64).map_err(|_| far())?),
                elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => {
                    physical::write(at, i32::try_from(distance).map_err(|_| far())?);
                }
                elf::R_X86_64_PC64 => physical::write(at, distance),
                other => {
                    return Err(LoadError(format!("{}: a relocation of type {} is not known", self.name, other.0)));
                }
            }
        }
        Ok(())
    }
}

/// Whether the call at `at` becomes one that needs no target: of a tracer to nothing, a return thunk to a return.
fn removed(at: u64, name: &str) -> bool {
    // SAFETY: the byte before a relocated one lies in the same section, or in the room of modules.
    let before: u8 = unsafe { physical::read(at - 1) };
    match (name, before) {
        ("__fentry__", 0xe8) => Low::copy(at - 1, &[0x0f, 0x1f, 0x44, 0x00, 0x00]),
        ("__x86_return_thunk", 0xe9) => Low::copy(at - 1, &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc]),
        _ => return false,
    }
    true
}
