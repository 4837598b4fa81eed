//! The words of a GRUB script (GRUB's manual, "Quoting").

use std::iter::Peekable;
use std::str::Chars;

use super::super::LONGEST;

/// A word, or what ends a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// A semicolon or the end of a line.
    End,
}

/// A word before its variables are put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
    /// Something in it was quoted, so that it stays a word when it is empty, and is no keyword.
    pub(super) quoted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Variable {
        name: String,
        /// Its value is not split into words.
        quoted: bool,
    },
}

impl Word {
    /// The text, if it may be a keyword.
    pub(super) fn keyword(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }

    /// The end of a line, when it is quoted, is a blank: what is made of it is a line.
    fn push(&mut self, c: char) {
        let c = if c == '\n' { ' ' } else { c };
        match self.parts.last_mut() {
            // One too long stays too long.
            Some(Part::Text(text)) if text.len() <= LONGEST => text.push(c),
            Some(Part::Text(_)) => {}
            _ => self.parts.push(Part::Text(c.into())),
        }
    }

    fn is_none(&self) -> bool {
        self.parts.is_empty() && !self.quoted
    }
}

/// Splits a script into words. A quote that nothing ends goes to the end of the text.
pub(super) fn split(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        tokens: Vec::new(),
        word: Word::default(),
    };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    tokens: Vec<Token>,
    word: Word,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.chars.next() {
            match c {
                '\n' | ';' => {
                    self.end_word();
                    self.tokens.push(Token::End);
                }
                '#' if self.word.is_none() => while self.chars.next_if(|c| *c != '\n').is_some() {},
                c if c.is_whitespace() => self.end_word(),
                '\'' => {
                    self.word.quoted = true;
                    for c in self.chars.by_ref().take_while(|c| *c != '\'') {
                        self.word.push(c);
                    }
                }
                '"' => self.double_quoted(),
                '\\' => match self.chars.next() {
                    None | Some('\n') => {}
                    Some(c) => {
                        self.word.quoted = true;
                        self.word.push(c);
                    }
                },
                '$' => self.variable(false),
                c => self.word.push(c),
            }
        }
        self.end_word();
        self.tokens.push(Token::End);
    }

    fn double_quoted(&mut self) {
        self.word.quoted = true;
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return,
                '$' => self.variable(true),
                '\\' => match self.chars.next_if(|c| "$\"\\\n".contains(*c)) {
                    Some('\n') => {}
                    Some(c) => self.word.push(c),
                    None => self.word.push('\\'),
                },
                c => self.word.push(c),
            }
        }
    }

    /// `$name`, `${name}`, or one of the shell's own, as `$1` and `$?`.
    fn variable(&mut self, quoted: bool) {
        let mut name = String::new();
        if self.chars.next_if_eq(&'{').is_some() {
            name.extend(self.chars.by_ref().take_while(|c| *c != '}'));
        } else if let Some(c) = self.chars.next_if(|c| "?@*#0123456789".contains(*c)) {
            name.push(c);
        } else {
            while let Some(c) = (self.chars).next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
        }
        if name.is_empty() {
            return self.word.push('$');
        }
        self.word.parts.push(Part::Variable { name, quoted });
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        if !word.is_none() {
            self.tokens.push(Token::Word(word));
        }
    }
}
