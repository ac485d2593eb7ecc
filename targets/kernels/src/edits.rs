//! Changes to C source that name functions and say what to rewrite in them, so that no text of the kernel has to be kept.

use crate::Error;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, from the top of the kernel's source.
    pub file: &'static str,
    /// The function, or `struct name`, that it is about; the whole file if there is none.
    pub within: &'static str,
    /// What to do there.
    pub rewrite: Rewrite,
}

/// What to do with a piece of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Replace each place of the first text by the second.
    Replace(&'static str, &'static str),
    /// Put the second text before the first place of the first.
    Before(&'static str, &'static str),
    /// Put the second text after the first place of the first.
    After(&'static str, &'static str),
    /// Put the text in front of the whole definition.
    InFront(&'static str),
}

/// Carry out those of `edits` that are about `file`, whose text is `source`.
///
/// # Errors
/// If a function or a text is not there: the script does not know this kernel.
pub fn apply(file: &str, source: &str, edits: &[Edit]) -> Result<String, Error> {
    let mut text = source.to_owned();
    for edit in edits.iter().filter(|edit| edit.file == file) {
        text = rewritten(&text, edit).ok_or_else(|| {
            let place = if edit.within.is_empty() { String::new() } else { format!(" in `{}`", edit.within) };
            Error::Absent(format!(
                "{file}: expected a place for {:?}{place}, found none: the script does not know this kernel",
                edit.rewrite
            ))
        })?;
    }
    Ok(text)
}

fn rewritten(text: &str, edit: &Edit) -> Option<String> {
    let region = if edit.within.is_empty() { 0..text.len() } else { definition(text, edit.within)? };
    let (before, rest) = text.split_at(region.start);
    let (inside, after) = rest.split_at(region.len());
    let inside = match edit.rewrite {
        Rewrite::Replace(old, new) => inside.contains(old).then(|| inside.replace(old, new))?,
        Rewrite::Before(place, new) => {
            let at = inside.find(place)?;
            format!("{}{new}{}", &inside[..at], &inside[at..])
        }
        Rewrite::After(place, new) => {
            let at = inside.find(place)? + place.len();
            format!("{}{new}{}", &inside[..at], &inside[at..])
        }
        Rewrite::InFront(new) => format!("{new}{inside}"),
    };
    Some(format!("{before}{inside}{after}"))
}

/// Where the definition of `name` stands: from the start of its first line to the brace in the first column that ends it.
pub fn definition(text: &str, name: &str) -> Option<std::ops::Range<usize>> {
    text.match_indices(name).find_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let rest = &text[at + name.len()..];
        let body = if name.starts_with("struct ") { rest } else { &rest[parameters(rest)?..] };
        if !body.trim_start().starts_with('{') {
            return None;
        }
        let end = text.len() - body.len() + body.find("\n}")? + "\n}".len();
        // The type may stand on the line before the name.
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let start = if line == at { text[..line.saturating_sub(1)].rfind('\n').map_or(0, |end| end + 1) } else { line };
        Some(start..end)
    })
}

/// How long the list of parameters at the start of `text` is.
fn parameters(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The names of the functions that `text` defines.
pub fn functions(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    // A definition's body opens in the first column.
    for (brace, _) in text.match_indices("\n{\n") {
        let head = &text[..brace];
        let head = head.trim_end();
        if !head.ends_with(')') {
            continue;
        }
        let Some(open) = matching_open(head) else { continue };
        let name = head[..open].trim_end();
        // FNAME(name)(parameters)
        let name = match name.strip_suffix(')').and_then(|inner| inner.rsplit_once("FNAME(")) {
            Some((_, inner)) => inner,
            None => name.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        if !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    names
}

/// Where the parenthesis is opened that `head` ends in.
fn matching_open(head: &str) -> Option<usize> {
    let mut depth = 0usize;
    head.char_indices().rev().find_map(|(at, c)| {
        match c {
            ')' => depth += 1,
            '(' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "struct page {\n\tint gfn;\n};\n\nstatic int map(int gfn);\n\nstatic int find(int gfn)\n{\n\treturn gfn != 0;\n}\n\n\
                          static int\nFNAME(map)(int gfn,\n\t   int level)\n{\n\treturn find(gfn);\n}\n";

    fn edited(within: &'static str, rewrite: Rewrite) -> Result<String, Error> {
        apply("a.c", SOURCE, &[Edit { file: "a.c", within, rewrite }])
    }

    #[test]
    fn a_change_stays_in_the_function_it_names() {
        let changed = edited("find", Rewrite::Replace("gfn", "pfn")).unwrap();
        assert_eq!(changed, SOURCE.replace("find(int gfn)\n{\n\treturn gfn", "find(int pfn)\n{\n\treturn pfn"));
        let changed = edited("FNAME(map)", Rewrite::Before("return", "warn();\n\t")).unwrap();
        assert_eq!(changed, SOURCE.replace("\treturn find", "\twarn();\n\treturn find"));
        let changed = edited("FNAME(map)", Rewrite::InFront("int new;\n")).unwrap();
        assert_eq!(changed, SOURCE.replace("static int\nFNAME", "int new;\nstatic int\nFNAME"));
        let changed = edited("struct page", Rewrite::After("gfn;", "\n\tint stolen;")).unwrap();
        assert_eq!(changed, SOURCE.replace("int gfn;\n}", "int gfn;\n\tint stolen;\n}"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (within, rewrite) in [("find", Rewrite::Replace("level", "")), ("walk", Rewrite::InFront(""))] {
            let Error::Absent(why) = edited(within, rewrite).unwrap_err() else { panic!("it is not there") };
            assert!(why.contains("a.c") && why.contains(within), "{why}");
        }
    }

    #[test]
    fn functions_are_found_by_their_bodies() {
        assert_eq!(functions(SOURCE), ["find", "map"]);
    }
}
