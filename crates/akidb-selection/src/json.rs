//! A reader of JSON for selectors, and their writer.
//!
//! A list of numbers, and a list of such lists of one length, is read straight into one `Vec<f64>`: a KNN of 200 MB is
//! read in one pass, with 8 bytes for each number. Numbers are rounded correctly, which `str::parse` promises. Nesting
//! is bounded, a key may occur once in an object, and every number is finite. All fields are kept in their order; in a
//! list with decimal numbers, integers are written as such too.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, shown};

/// Objects and lists inside each other below the document; the formats need five.
const MAX_DEPTH: usize = 64;
/// Integers below this are exact in a float64.
const EXACT: u64 = 1 << 53;

/// A value of JSON.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As it is written, since it may be an integer of many digits.
    Number(Box<str>),
    Text(String),
    Vector(Vector),
    Matrix(Arc<Matrix>),
    List(Vec<Value>),
    Object(Object),
}

/// An object's fields in their order, each key once.
pub(crate) type Object = Vec<(String, Value)>;

/// A list of one or more numbers.
#[derive(Debug, Clone)]
pub(crate) struct Vector {
    pub(crate) values: Vec<f64>,
    /// Whether all are written as integers; each is exact.
    pub(crate) integers: bool,
}

/// Rows of numbers of one length, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matrix {
    pub(crate) values: Vec<f64>,
    pub(crate) width: usize,
    integers: bool,
}

impl Matrix {
    pub(crate) fn new(values: Vec<f64>, width: usize) -> Self {
        Self { values, width, integers: false }
    }

    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.width.max(1))
    }

    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..][..self.width]
    }

    pub(crate) fn len(&self) -> usize {
        self.rows().len()
    }
}

impl Value {
    /// Return the kind of value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Vector(_) | Self::Matrix(_) | Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Return the value, or its kind where it is long, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => shown(text),
            Self::Number(text) if text.len() < 40 => text.to_string(),
            Self::Bool(value) => value.to_string(),
            other => other.kind().to_owned(),
        }
    }
}

/// Return the object in a JSON text.
pub(crate) fn read(text: &str) -> Result<Object, Error> {
    let mut reader = Reader { text, at: 0 };
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
            if !self.more(b'}')? {
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
            if !self.more(b']')? {
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
        self.items(vector.values.iter().map(|value| number(*value, vector.integers)).collect(), depth)
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
            if !self.more(b']')? {
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

/// Return a number of a list as a value of its own.
fn number(value: f64, is_integer: bool) -> Value {
    let mut text = Vec::new();
    write_number(&mut text, value, is_integer);
    Value::Number(String::from_utf8_lossy(&text).into())
}

/// Write an object as JSON.
pub(crate) fn write(fields: &Object) -> String {
    let mut out = Vec::new();
    write_object(&mut out, fields);
    // Every part is UTF-8, so nothing is replaced.
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(text) => write_text(out, text),
        Value::Vector(vector) => write_numbers(out, &vector.values, vector.integers),
        Value::Matrix(matrix) => {
            write_list(out, matrix.rows(), |out, row| write_numbers(out, row, matrix.integers));
        }
        Value::List(items) => write_list(out, items, write_value),
        Value::Object(fields) => write_object(out, fields),
    }
}

fn write_object(out: &mut Vec<u8>, fields: &Object) {
    out.push(b'{');
    for (place, (key, value)) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_list<I: IntoIterator>(out: &mut Vec<u8>, items: I, write: impl Fn(&mut Vec<u8>, I::Item)) {
    out.push(b'[');
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_numbers(out: &mut Vec<u8>, values: &[f64], integers: bool) {
    write_list(out, values, |out, value| write_number(out, *value, integers));
}

fn write_number(out: &mut Vec<u8>, value: f64, is_integer: bool) {
    // Writing to a Vec does not fail.
    let _ = if is_integer { serde_json::to_writer(out, &(value as i64)) } else { serde_json::to_writer(out, &value) };
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}
