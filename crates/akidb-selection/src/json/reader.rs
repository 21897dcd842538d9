//! The reader of JSON.

use std::collections::HashSet;
use std::sync::Arc;

use super::writer::number_text;
use super::{Matrix, Object, Value, Vector};
use crate::error::{Error, shown};

/// Objects and lists inside each other, the document itself not counted; the formats need four.
const MAX_DEPTH: usize = 64;
/// Integers below this are exact in a float64.
const EXACT: u64 = 1 << 53;
/// A list, an object, a string or a value of its own takes up to 100 bytes of memory and as little as 2 of a file. So a
/// file may have one for so many bytes that may be read, and always the fewest.
const BYTES_OF_A_PART: u64 = 64;
const FEWEST_PARTS: u64 = 10_000;

/// Return the object in a JSON text.
///
/// Its parts are bounded by the length that a text may have: its opening brackets, braces and quotation marks, and its
/// commas outside strings and lists of numbers.
pub(crate) fn read(text: &str, max_bytes: u64) -> Result<Object, Error> {
    let limit = FEWEST_PARTS.max(max_bytes / BYTES_OF_A_PART);
    // Sums of 255 bytes at most do not overflow, and are fast.
    let mark = |byte: &u8| u8::from(matches!(byte, b'[' | b'{' | b'"'));
    let marks = text.as_bytes().chunks(255).map(|part| usize::from(part.iter().map(mark).sum::<u8>())).sum();
    let mut reader = Reader { text, at: 0, parts: 0, limit };
    reader.count(marks)?;
    let value = reader.value(0)?;
    if reader.peek().is_some() {
        return Err(reader.fault("more text after the end"));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::field("a selector", format!("must be a JSON object, found {}", other.kind()))),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many parts were found, and how many there may be.
    parts: u64,
    limit: u64,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(|number| Value::Number(number.text.into())),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.fault("expected a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Error> {
        self.open(depth)?;
        let mut fields = Object::new();
        let mut keys = HashSet::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(fields));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.fault("expected a key"));
            }
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                return Err(Error::field(shown_key(&key), "occurs twice in one object"));
            }
            if self.peek() != Some(b':') {
                return Err(self.fault("expected a colon"));
            }
            self.at += 1;
            let value = self.value(depth + 1).map_err(|error| error.within(&shown_key(&key)))?;
            fields.push((key, value));
            if !self.more_parts(b'}')? {
                return Ok(Value::Object(fields));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Error> {
        self.open(depth)?;
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                Ok(Value::List(Vec::new()))
            }
            Some(b'-' | b'0'..=b'9') => self.vector(depth),
            Some(b'[') => self.matrix(depth),
            _ => self.items(Vec::new(), depth),
        }
    }

    /// Read a list's items after those that were read.
    fn items(&mut self, mut items: Vec<Value>, depth: usize) -> Result<Value, Error> {
        loop {
            let place = items.len();
            items.push(self.value(depth + 1).map_err(|error| error.within(&format!("[{place}]")))?);
            if !self.more_parts(b']')? {
                return Ok(Value::List(items));
            }
        }
    }

    fn vector(&mut self, depth: usize) -> Result<Value, Error> {
        let mut vector = Vector { values: Vec::new(), integers: true };
        while self.push_number(&mut vector.values, &mut vector.integers, 0)? {
            if !self.more(b']')? {
                return Ok(Value::Vector(vector));
            }
        }
        self.count(vector.values.len())?;
        let number = |value: &f64| Value::Number(number_text(*value, vector.integers));
        self.items(vector.values.iter().map(number).collect(), depth)
    }

    /// Read rows of one length. Whatever else is found, the rows before it become items of a list.
    fn matrix(&mut self, depth: usize) -> Result<Value, Error> {
        let mut matrix = Matrix { integers: true, ..Matrix::default() };
        loop {
            let (start, length, integers) = (self.at, matrix.values.len(), matrix.integers);
            let place = |error: Error| error.within(&format!("[{}]", length / matrix.width.max(1)));
            if !self.push_row(&mut matrix.values, &mut matrix.integers, depth + 1).map_err(place)? {
                matrix.values.truncate(length);
                matrix.integers = integers;
                self.at = start;
                break;
            }
            let width = matrix.values.len() - length;
            if matrix.width == 0 {
                matrix.width = width;
            }
            if width != matrix.width {
                matrix.values.truncate(length);
                matrix.integers = integers;
                self.at = start;
                break;
            }
            if !self.more_parts(b']')? {
                matrix.values.shrink_to_fit();
                return Ok(Value::Matrix(Arc::new(matrix)));
            }
        }
        let row = |row: &[f64]| Value::Vector(Vector { values: row.to_vec(), integers: matrix.integers });
        self.items(matrix.rows().map(row).collect(), depth)
    }

    /// Read a row of numbers; return false, somewhere in it, where it is something else.
    fn push_row(&mut self, values: &mut Vec<f64>, integers: &mut bool, depth: usize) -> Result<bool, Error> {
        if self.peek() != Some(b'[') {
            return Ok(false);
        }
        self.open(depth)?;
        let before = values.len();
        while self.push_number(values, integers, before)? {
            if !self.more(b']')? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Read a number that a float64 holds; return false, before it, where there is something else.
    fn push_number(&mut self, values: &mut Vec<f64>, integers: &mut bool, before: usize) -> Result<bool, Error> {
        let start = self.at;
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Ok(false);
        }
        let number = self.number().map_err(|error| error.within(&format!("[{}]", values.len() - before)))?;
        if number.is_integer && number.value.abs() >= EXACT as f64 {
            self.at = start;
            return Ok(false);
        }
        *integers &= number.is_integer;
        values.push(number.value);
        Ok(true)
    }

    fn number(&mut self) -> Result<Number<'a>, Error> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes[start] == b'-');
        let mut is_integer = true;
        let whole = digits(bytes, at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return Err(self.fault("a number that is not one of JSON"));
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            is_integer = false;
            let fraction = digits(bytes, at + 1);
            if fraction == 0 {
                return Err(self.fault("a number that is not one of JSON"));
            }
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            is_integer = false;
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(bytes, at);
            if exponent == 0 {
                return Err(self.fault("a number that is not one of JSON"));
            }
            at += exponent;
        }
        let text = &self.text[start..at];
        let value = text.parse::<f64>().unwrap_or(f64::NAN);
        if !value.is_finite() {
            return Err(Error::field("", "is not a finite number"));
        }
        self.at = at;
        Ok(Number { text, value, is_integer })
    }

    fn string(&mut self) -> Result<String, Error> {
        let bytes = self.text.as_bytes();
        let (start, mut at) = (self.at, self.at + 1);
        let mut plain = true;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    at += 2;
                }
                Some(0..0x20) => return Err(self.fault("a control character in a string")),
                Some(_) => at += 1,
                None => return Err(self.fault("a string without an end")),
            }
        }
        self.at = at + 1;
        if plain {
            return Ok(self.text[start + 1..at].to_owned());
        }
        serde_json::from_str(&self.text[start..=at]).map_err(|_| {
            self.at = start;
            self.fault("a string with a wrong escape")
        })
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    /// Go past the bracket of an object or a list.
    fn open(&mut self, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { limit: MAX_DEPTH });
        }
        self.at += 1;
        Ok(())
    }

    /// Go past a comma or the end; return whether there is more.
    fn more(&mut self, end: u8) -> Result<bool, Error> {
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(false);
            }
            _ => return Err(self.fault("expected a comma or the end of a list or object")),
        }
        Ok(true)
    }

    /// Go past a comma, which is a part, or the end; return whether there is more.
    fn more_parts(&mut self, end: u8) -> Result<bool, Error> {
        let more = self.more(end)?;
        self.count(usize::from(more))?;
        Ok(more)
    }

    fn count(&mut self, parts: usize) -> Result<(), Error> {
        self.parts += parts as u64;
        if self.parts > self.limit { Err(Error::TooManyParts { limit: self.limit }) } else { Ok(()) }
    }

    /// Go past white space; return the byte there.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    fn fault(&self, fault: &'static str) -> Error {
        Error::Syntax { fault, offset: self.at }
    }
}

struct Number<'a> {
    text: &'a str,
    value: f64,
    is_integer: bool,
}

fn digits(bytes: &[u8], start: usize) -> usize {
    bytes[start.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Return a key as a message names it.
fn shown_key(key: &str) -> String {
    let quoted = shown(key);
    if quoted.len() == key.len() + 2 { key.to_owned() } else { quoted }
}
