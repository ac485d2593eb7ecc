//! What a kernel's image says about itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What the kernel in the file `image` calls itself, as its header for boot loaders says (Linux, `Documentation/arch/x86/boot.rst`);
/// `None` if there is no such header.
pub(super) fn release(image: &Path) -> io::Result<Option<String>> {
    const MAGIC: (u64, &[u8; 4]) = (0x202, b"HdrS");
    const VERSION: u64 = 0x20e;
    /// What is there counts from here.
    const BASE: u64 = 0x200;
    let mut file = File::open(image)?;
    let (mut magic, mut offset, mut text) = ([0; 4], [0; 2], Vec::new());
    let mut read = |at, to: &mut [u8]| file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(to));
    let found = read(MAGIC.0, &mut magic).and_then(|()| read(VERSION, &mut offset));
    match found {
        Ok(()) if &magic == MAGIC.1 => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Ok(None),
    }
    file.seek(SeekFrom::Start(BASE + u64::from(u16::from_le_bytes(offset))))?;
    file.take(256).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // RELEASE (WHO@WHERE) #NUMBER …
    Ok(text.split([' ', '\0']).next().filter(|word| !word.is_empty()).map(str::to_owned))
}
