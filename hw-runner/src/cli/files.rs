//! Files: bounded reads, and writes that leave a whole file or none.

use crate::trace::{self, Trace};
use gpa_model::limits::FILE_BYTES;
use gpa_model::{Program, text};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// The text of `path`, of at most [`FILE_BYTES`] bytes.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let most = FILE_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|error| format!("{}: expected a readable file, found: {error}", path.display()))?;
    if bytes.len() > FILE_BYTES {
        return Err(format!("{}: expected at most {FILE_BYTES} bytes, found more", path.display()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{}: expected UTF-8 text, found something else at byte {at}", path.display())
    })
}

/// The program in `path`, and the trace, if the file is one.
pub(super) fn program(path: &Path) -> Result<(Program, Option<Trace>), String> {
    let text = read(path)?;
    let complain = |error| format!("{}:{error}", path.display());
    if text.starts_with(trace::MAGIC) {
        let trace = trace::parse(&text).map_err(complain)?;
        return Ok((trace.program.clone(), Some(trace)));
    }
    text::parse(&text).map_err(complain).map(|program| (program, None))
}

/// Writes `text` to `dir/name`: a reader sees the old file or the new one, never a part.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&temporary, dir.join(name)));
    if done.is_err() {
        // The file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    done?;
    File::open(dir)?.sync_all()
}
