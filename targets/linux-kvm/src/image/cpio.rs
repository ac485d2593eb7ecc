//! An archive in the format `newc` of cpio, which is what the kernel unpacks as its first file system.

/// The mode of a folder, and of a file that can be executed.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Add the folder `name`.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[]);
    }

    /// Add the file `name`, which can be executed.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    /// Header, name and content, each padded to four bytes. Owner, time and devices are 0, so the same files give the same bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name_bytes, file_bytes) = (name.len() as u32 + 1, content.len() as u32);
        let fields = [self.entries, mode, 0, 0, 1, 0, file_bytes, 0, 0, 0, 0, name_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_agreed_form() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.file("init", b"#!");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap().replace('\0', "~");
        let header = |number: u32, mode: u32, size: u32, name: u32| {
            format!(
                "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{}{name:08x}{:08x}",
                0,
                0,
                1,
                0,
                "0".repeat(32),
                0
            )
        };
        let expected = format!(
            "{}dev~~~{}init~~#!~~{}TRAILER!!!~~~~",
            header(1, FOLDER, 0, 4),
            header(2, FILE, 2, 5),
            header(3, 0, 0, 11)
        );
        assert_eq!(text, expected);
    }
}
