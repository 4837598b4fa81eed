//! The commands of a GRUB script (GRUB's manual, "Shell-like scripting").

use std::rc::Rc;

use super::super::DEEPEST;
use super::words::{Token, Word, split};

/// A command. Bodies are shared: a function's may be run often.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// Words, and the block in braces of a menu entry.
    Simple(Vec<Word>, Option<Block>),
    /// Conditions and what follows from them, in order; the last may have none.
    If(Vec<(Option<Block>, Block)>),
    For(String, Vec<Word>, Block),
    Function(String, Block),
}

pub(super) type Block = Rc<Vec<Command>>;

/// Parses a script. What makes no sense is passed over.
pub(super) fn parse(text: &str) -> Block {
    let tokens = split(text);
    let mut parser = Parser {
        tokens: &tokens,
        depth: 0,
    };
    let mut all = Vec::new();
    loop {
        let block = parser.block(&[]);
        all.extend(block.iter().cloned());
        // Stopped by a word that ends what never began.
        match parser.tokens.split_first() {
            Some((_, rest)) => parser.tokens = rest,
            None => return Rc::new(all),
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

/// Words that end a block.
const ENDS: [&str; 7] = ["}", "then", "elif", "else", "fi", "do", "done"];

impl Parser<'_> {
    /// Commands up to a word that ends a block, which stays. `ends` are those looked for; another ends
    /// it just as well.
    fn block(&mut self, ends: &[&str]) -> Block {
        let mut commands = Vec::new();
        self.depth = self.depth.saturating_add(1);
        while let Some((token, rest)) = self.tokens.split_first() {
            let Token::Word(word) = token else {
                self.tokens = rest;
                continue;
            };
            match word.keyword() {
                Some(end) if ends.contains(&end) || ENDS.contains(&end) => break,
                // Blocks in blocks without end are nobody's menu: what is in them runs as it comes.
                Some(_) if self.depth > DEEPEST => self.simple(&mut commands),
                Some("if") => {
                    self.tokens = rest;
                    let command = self.branches();
                    commands.push(command);
                }
                Some("for") => {
                    self.tokens = rest;
                    commands.extend(self.repeat());
                }
                // How long they go on is not known; they are passed over.
                Some("while" | "until") => {
                    self.tokens = rest;
                    self.block(&["do"]);
                    self.skip("do");
                    self.block(&["done"]);
                    self.skip("done");
                }
                Some("function") => {
                    self.tokens = rest;
                    let name = self
                        .word()
                        .and_then(|word| word.keyword().map(str::to_owned));
                    let body = self.braces();
                    if let (Some(name), Some(body)) = (name, body) {
                        commands.push(Command::Function(name, body));
                    }
                }
                _ => self.simple(&mut commands),
            }
        }
        self.depth = self.depth.saturating_sub(1);
        Rc::new(commands)
    }

    fn branches(&mut self) -> Command {
        let mut branches = Vec::new();
        loop {
            let condition = self.block(&["then"]);
            self.skip("then");
            let body = self.block(&["elif", "else", "fi"]);
            branches.push((Some(condition), body));
            if self.skip("elif") {
                continue;
            }
            if self.skip("else") {
                branches.push((None, self.block(&["fi"])));
            }
            self.skip("fi");
            return Command::If(branches);
        }
    }

    fn repeat(&mut self) -> Option<Command> {
        let name = self.word()?.keyword()?.to_owned();
        let mut words = Vec::new();
        self.skip("in");
        while let Some(word) = self.word() {
            words.push(word);
        }
        while let Some((Token::End, rest)) = self.tokens.split_first() {
            self.tokens = rest;
        }
        self.skip("do");
        let body = self.block(&["done"]);
        self.skip("done");
        Some(Command::For(name, words, body))
    }

    /// Words up to the end of the command, and a block in braces among them.
    fn simple(&mut self, commands: &mut Vec<Command>) {
        let (mut words, mut block) = (Vec::new(), None);
        while let Some((Token::Word(word), rest)) = self.tokens.split_first() {
            match word.keyword() {
                Some("{") if self.depth <= DEEPEST => {
                    block = self.braces();
                    break;
                }
                // As in `{ linux /vmlinuz }`.
                Some("}") if !words.is_empty() => break,
                _ => {}
            }
            words.push(word.clone());
            self.tokens = rest;
        }
        commands.push(Command::Simple(words, block));
    }

    fn braces(&mut self) -> Option<Block> {
        while let Some((Token::End, rest)) = self.tokens.split_first() {
            self.tokens = rest;
        }
        if !self.skip("{") {
            return None;
        }
        let mut all = Vec::new();
        loop {
            all.extend(self.block(&["}"]).iter().cloned());
            if self.skip("}") || self.tokens.is_empty() {
                return Some(Rc::new(all));
            }
            // Another block's end: it began nowhere.
            self.tokens = self.tokens.get(1..).unwrap_or_default();
        }
    }

    /// The next word of this command.
    fn word(&mut self) -> Option<Word> {
        let (Token::Word(word), rest) = self.tokens.split_first()? else {
            return None;
        };
        self.tokens = rest;
        Some(word.clone())
    }

    /// Takes this keyword, if it is the next.
    fn skip(&mut self, keyword: &str) -> bool {
        let next = match self.tokens.split_first() {
            Some((Token::Word(word), rest)) if word.keyword() == Some(keyword) => rest,
            _ => return false,
        };
        self.tokens = next;
        true
    }
}
