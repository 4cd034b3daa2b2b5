// SPDX-License-Identifier: GPL-2.0-only
//! Reading TOML so that every mistake is noted with its place, and reading goes on.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// All that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "the specification has {} {many}:", self.0.len())?;
        for Mistake { line, column, what } in &self.0 {
            write!(f, "\n  line {line}, column {column}: {what}")?;
        }
        Ok(())
    }
}

const NAME_RULE: &str = "a name has letters, digits, '-', '_' and '.', and begins with a letter or a digit";

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 64
}

/// A table of the file, and where it is.
#[derive(Clone)]
pub struct Table<'a> {
    /// What it has.
    pub entries: &'a DeTable<'a>,
    /// Where it is in the text, bytes.
    pub span: Range<usize>,
    /// For words: `[[scheduler]]`; empty at the top.
    pub title: &'static str,
}

/// Reads values, and notes what is wrong with them.
pub struct Reader<'a> {
    /// The whole of it.
    pub content: &'a str,
    /// What is wrong with it so far.
    pub mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub fn mistake(&mut self, span: &Range<usize>, what: impl Into<String>) {
        let before = &self.content.as_bytes()[..span.start.min(self.content.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
        self.mistakes.push(Mistake { line, column, what: what.into() });
    }

    /// Every key of the table must be one of these.
    pub fn only(&mut self, table: &Table<'a>, known: &[&str]) {
        for key in table.entries.keys() {
            if !known.contains(&&**key.get_ref()) {
                let place = if table.title.is_empty() { "at the top".into() } else { format!("in {}", table.title) };
                self.mistake(
                    &key.span(),
                    format!("there is no {:?} {place}; there are {}", &**key.get_ref(), known.join(", ")),
                );
            }
        }
    }

    pub fn find(&self, table: &Table<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        table.entries.iter().find(|(name, _)| &**name.get_ref() == key).map(|(_, value)| value)
    }

    pub fn missing(&mut self, table: &Table<'a>, key: &str, example: &str) {
        let place = if table.title.is_empty() { String::new() } else { format!("{}: ", table.title) };
        self.mistake(&table.span.clone(), format!("{place}{key} is missing, as in {example}"));
    }

    pub fn wrong_kind(&mut self, value: &Spanned<DeValue<'a>>, key: &str, wanted: &str) {
        self.mistake(&value.span(), format!("{key} is {wanted}, not a {}", value.get_ref().type_str()));
    }

    pub fn text(&mut self, table: &Table<'a>, key: &str) -> Option<(&'a str, Range<usize>)> {
        let value = self.find(table, key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_kind(value, key, "a string");
        }
        Some((text?, value.span()))
    }

    pub fn name(&mut self, table: &Table<'a>, key: &str, example: &str) -> Option<(String, Range<usize>)> {
        if self.find(table, key).is_none() {
            self.missing(table, key, example);
        }
        let (text, span) = self.text(table, key)?;
        if !is_name(text) {
            self.mistake(&span, format!("{key} = {text:?}: {NAME_RULE}"));
            return None;
        }
        Some((text.into(), span))
    }

    pub fn integer(&mut self, value: &'a Spanned<DeValue<'a>>, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_kind(value, key, "a whole number");
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        if parsed.is_none() {
            let (low, high) = (range.start(), range.end());
            self.mistake(&value.span(), format!("{key} is from {low} to {high}, not {}", number.as_str()));
        }
        parsed
    }

    pub fn integer_of(&mut self, table: &Table<'a>, key: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        self.find(table, key).and_then(|value| self.integer(value, key, &range)).unwrap_or(default)
    }

    pub fn seconds(&mut self, table: &Table<'a>, key: &str, default: f64, least: f64) -> f64 {
        let Some(value) = self.find(table, key) else { return default };
        let parsed = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        match parsed.filter(|seconds| (least..=1e6).contains(seconds)) {
            Some(seconds) => seconds,
            None => {
                self.mistake(&value.span(), format!("{key} is a number of seconds, from {least} to 1000000"));
                default
            }
        }
    }

    pub fn truth(&mut self, table: &Table<'a>, key: &str, default: bool) -> bool {
        let Some(value) = self.find(table, key) else { return default };
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_kind(value, key, "true or false");
        }
        truth.unwrap_or(default)
    }

    pub fn array(&mut self, table: &Table<'a>, key: &str, wanted: &str) -> Vec<&'a Spanned<DeValue<'a>>> {
        let Some(value) = self.find(table, key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_kind(value, key, wanted);
            return Vec::new();
        };
        if array.is_empty() {
            self.mistake(&value.span(), format!("{key} is empty"));
        }
        array.iter().collect()
    }

    /// The tables `[[key]]`.
    pub fn tables(&mut self, top: &Table<'a>, key: &str, title: &'static str) -> Vec<Table<'a>> {
        let mut tables = Vec::new();
        for value in self.array(top, key, &format!("a list of tables: {title}")) {
            match value.get_ref().as_table() {
                Some(entries) => tables.push(Table { entries, span: value.span(), title }),
                None => self.wrong_kind(value, key, &format!("a table: {title}")),
            }
        }
        tables
    }
}
