//! KVM's counters, read by name from the binary format of `KVM_GET_STATS_FD`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A header has six words, a descriptor four words before its name.
const HEADER_BYTES: usize = 24;
const DESCRIPTOR_BYTES: usize = 16;
/// Bounds that no kernel reaches; a header beyond them is refused.
const NAME_BYTES_MAX: usize = 256;
const COUNTERS_MAX: usize = 4096;

/// The counters of one VM or vCPU, with their offsets in the file.
#[derive(Debug)]
pub(crate) struct Stats {
    file: File,
    counters: Vec<(String, u64)>,
}

impl Stats {
    /// Reads the descriptors.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let (name_bytes, count) = (word(&header, 4) as usize, word(&header, 8) as usize);
        let (descriptors, data) = (u64::from(word(&header, 16)), u64::from(word(&header, 20)));
        if name_bytes > NAME_BYTES_MAX || count > COUNTERS_MAX {
            return Err(io::Error::other(format!("{count} statistics with names of {name_bytes} bytes")));
        }
        let size = DESCRIPTOR_BYTES + name_bytes;
        let mut bytes = vec![0; size * count];
        file.read_exact_at(&mut bytes, descriptors)?;
        let counters = bytes.chunks_exact(size).map(|descriptor| {
            let name = descriptor[DESCRIPTOR_BYTES..].split(|&byte| byte == 0).next().unwrap_or_default();
            (String::from_utf8_lossy(name).into_owned(), data + u64::from(word(descriptor, 8)))
        });
        let counters = counters.collect();
        Ok(Self { file, counters })
    }

    /// The value of `name` now; `None` if the kernel has no such counter.
    pub(crate) fn read(&self, name: &str) -> Option<u64> {
        let (_, offset) = self.counters.iter().find(|(known, _)| known == name)?;
        let mut value = [0; size_of::<u64>()];
        self.file.read_exact_at(&mut value, *offset).ok()?;
        Some(u64::from_le_bytes(value))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}
