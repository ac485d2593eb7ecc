//! The README as a test: what it tells a newcomer to type works, what it shows parses, and what it links to is there.
//!
//! - A block ```` ```console ```` is a session: `$ ` starts a command, and what follows is what it prints, line by line and
//!   in order, where `…` stands for anything. `# exit N` after a command states its exit status, which is 0 otherwise.
//! - A block ```` ```sh ```` holds commands alone, a line each.
//! - A block whose first line opens a program is replayed: it must be read, whatever the oracles say about it.
//! - A block ```` ```rust ```` must be a doc test of some crate, by `#[doc = include_str!(…README.md)]`.
//! - A link to a file must lead to one.

use crate::gate::{Gate, Halt, Verdict};
use crate::tree::Tree;
use std::process::Command;

/// The gate does not start itself.
const GATE: &str = "cargo xtask test";
/// Commands of this project, which a newcomer runs through cargo or from the release folder.
const BINARIES: [&str; 2] = ["gpafuzz", "hw-runner"];

pub(crate) fn check(gate: &Gate) -> Verdict {
    let tree = gate.tree()?;
    let text = tree.text("README.md").ok_or_else(|| Halt::failed("expected README.md, found none"))?;
    let blocks = blocks(text);
    let mut problems = dead_links(text, &tree);
    problems.extend(untested_rust(&blocks, &tree));
    let (mut commands, mut programs) = (0, 0);
    for block in &blocks {
        if let Some(session) = block.session() {
            for command in commands_of(&session).map_err(Halt::Failed)?.iter().filter(|c| c.line != GATE) {
                commands += 1;
                problems.extend(run(gate, command)?);
            }
        } else if block.text.starts_with("gpafuzz-program ") {
            programs += 1;
            problems.extend(replay(gate, block)?);
        }
    }
    if problems.is_empty() {
        Ok(format!("{commands} commands, {programs} programs"))
    } else {
        Err(Halt::failed(problems.join("\n")))
    }
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    language: String,
    text: String,
}

impl Block {
    /// The block as a session, if it is one or holds commands.
    fn session(&self) -> Option<String> {
        match self.language.as_str() {
            "console" => Some(self.text.clone()),
            "sh" => Some(self.text.lines().map(|line| format!("$ {line}\n")).collect()),
            _ => None,
        }
    }
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in markdown.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { line: number, language: language.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A command of a session, with what it should come to.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    line: String,
    exit: i32,
    output: Vec<String>,
}

fn commands_of(session: &str) -> Result<Vec<Expected>, String> {
    let mut commands: Vec<Expected> = Vec::new();
    for line in session.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let (command, exit) = match command.split_once("# exit ") {
                Some((command, exit)) => {
                    (command, exit.trim().parse().map_err(|_| format!("README: `{line}`: no exit status"))?)
                }
                None => (command.split(" # ").next().unwrap_or(command), 0),
            };
            commands.push(Expected { line: command.trim().to_owned(), exit, output: Vec::new() });
        } else if let Some(command) = commands.last_mut() {
            command.output.push(line.to_owned());
        } else {
            return Err(format!("README: expected a console block to begin with `$ `, found `{line}`"));
        }
    }
    Ok(commands)
}

fn run(gate: &Gate, expected: &Expected) -> Result<Option<String>, Halt> {
    let words: Vec<&str> = expected.line.split_whitespace().collect();
    let Some((&program, args)) = words.split_first() else { return Ok(None) };
    let mut command = match program {
        "cargo" => gate.cargo(args),
        program if BINARIES.contains(&program) => {
            let mut command = gate.binary(program)?;
            command.args(args);
            command
        }
        _ => return Ok(Some(format!("README: `{}`: expected cargo, {}", expected.line, BINARIES.join(" or ")))),
    };
    let (status, printed) = output(&mut command)?;
    let problem = if status != expected.exit {
        Some(format!("expected exit status {}, found {status}", expected.exit))
    } else {
        missing(&expected.output, &printed).map(|line| format!("expected it to print `{line}`"))
    };
    Ok(problem.map(|problem| format!("README: `{}`: {problem}; it printed:\n{printed}", expected.line)))
}

fn output(command: &mut Command) -> Result<(i32, String), Halt> {
    let output = command.output().map_err(|e| Halt::failed(format!("cannot start {command:?}: {e}")))?;
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.code().unwrap_or(-1), printed))
}

/// The first line of `wanted` that `printed` does not show after the lines before it.
fn missing<'a>(wanted: &'a [String], printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines();
    let wanted = wanted.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && *line != "…");
    wanted.into_iter().find(|line| !printed.any(|found| matches(line, found.trim())))
}

/// Whether `found` is `wanted`, where `…` stands for anything and runs of blanks are one.
fn matches(wanted: &str, found: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, found) = (squeeze(wanted), squeeze(found));
    let parts: Vec<&str> = wanted.split('…').map(str::trim).collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return wanted == found;
    }
    let Some(mut rest) = found.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    parts[1..parts.len() - 1].iter().all(|part| {
        let at = rest.find(part);
        rest = at.map_or("", |at| &rest[at + part.len()..]);
        at.is_some()
    })
}

fn replay(gate: &Gate, block: &Block) -> Result<Option<String>, Halt> {
    let path = gate.scratch("program")?.join("readme.prog");
    std::fs::write(&path, &block.text).map_err(|e| Halt::failed(format!("cannot write {}: {e}", path.display())))?;
    let (status, printed) = output(gate.binary("gpafuzz")?.arg("replay").arg(path))?;
    let read = status == 0 || status == 1;
    Ok((!read).then(|| format!("README.md:{}: the program is refused:\n{printed}", block.line)))
}

fn untested_rust(blocks: &[Block], tree: &Tree) -> Option<String> {
    let rust = blocks.iter().find(|block| block.language.starts_with("rust"))?;
    let tested = tree
        .files()
        .any(|(path, text)| path.ends_with("/src/lib.rs") && text.contains("doctest") && text.contains("README.md\")"));
    (!tested).then(|| {
        format!("README.md:{}: expected Rust here to be a doc test, found no crate that includes README.md", rust.line)
    })
}

fn dead_links(text: &str, tree: &Tree) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or(target)).filter(|target| !target.is_empty());
    let local = files.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    let exists = |target: &str| {
        let target = target.trim_end_matches('/');
        tree.has(target)
            || tree.files().any(|(path, _)| path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/')))
    };
    local
        .filter(|target| !exists(target))
        .map(|target| format!("README.md: the link to {target} leads nowhere"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_with_status_and_output() {
        let session = "$ gpafuzz replay a.prog  # exit 1\nline one\n…\n$ cargo run # the main job\n";
        let found = commands_of(session).unwrap();
        assert_eq!((found[0].line.as_str(), found[0].exit), ("gpafuzz replay a.prog", 1));
        assert_eq!(found[0].output, ["line one", "…"]);
        assert_eq!((found[1].line.as_str(), found[1].exit), ("cargo run", 0));
        assert!(commands_of("no prompt").is_err());
    }

    #[test]
    fn commands_alone_are_a_session() {
        let block = &blocks("```sh\ncargo run   # the main job\ncargo xtask test\n```\n")[0];
        let found = commands_of(&block.session().unwrap()).unwrap();
        assert_eq!(found.iter().map(|command| command.line.as_str()).collect::<Vec<_>>(), ["cargo run", GATE]);
    }

    #[test]
    fn output_that_is_not_printed_is_caught() {
        let wanted = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let printed = "a 12   b\nc\nd 7 e 8 f\n";
        assert_eq!(missing(&wanted(&["a … b", "…", "d … e … f"]), printed), None);
        assert_eq!(missing(&wanted(&["c", "a … b"]), printed), Some("a … b"), "order counts");
        assert_eq!(missing(&wanted(&["a … c"]), printed), Some("a … c"));
        assert_eq!(missing(&wanted(&["d … g … f"]), printed), Some("d … g … f"));
    }

    #[test]
    fn links_that_lead_nowhere_are_caught() {
        let tree = Tree::of(&[("model/src/lib.rs", ""), ("README.md", "")]);
        let text = "[a](model/src/lib.rs) [b](model/) [c](https://x.org/y) [d](gone.md) [e](#part)";
        assert_eq!(dead_links(text, &tree), ["README.md: the link to gone.md leads nowhere"]);
    }

    #[test]
    fn rust_that_is_no_doc_test_is_caught() {
        let blocks = blocks("x\n```rust\nfn f() {}\n```\n```console\n$ cargo\n```\n");
        assert_eq!(blocks.len(), 2);
        assert!(untested_rust(&blocks, &Tree::of(&[])).is_some_and(|problem| problem.contains("README.md:2")));
        let included = "#[cfg(doctest)]\n#[doc = include_str!(\"../../README.md\")]\nstruct Readme;";
        assert_eq!(untested_rust(&blocks, &Tree::of(&[("oracles/src/lib.rs", included)])), None);
    }
}
