//! A look at an ONNX file before ONNX Runtime reads it: only the fields are read, never the weights.
//!
//! A file is refused if it holds what an exported embedding model has no need of and what could run for ever, read
//! other files or call foreign code: graphs inside of nodes, functions, operators that are not ONNX's or ONNX Runtime's
//! own, data outside of its folder. The encoding is protobuf's (protobuf.dev, "Encoding").

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::EmbeddingResult;
use crate::failures::{broken, excerpt};

/// A hundred times what an embedding model has.
const MAX_NODES: usize = 100_000;
const MAX_TENSORS: usize = 20_000;
/// The longest text that is read: a tokenizer. All others are names and numbers.
const LONGEST_TOKENIZER: u64 = 1 << 26;
const LONGEST_TEXT: u64 = 1 << 20;
const TOKENIZER: &str = "akidb.tokenizer";
const DOMAINS: [&str; 3] = ["", "ai.onnx", "com.microsoft"];

/// Return the texts that a file carries, by name.
///
/// # Errors
///
/// `Internal`: it cannot be read, is malformed, or holds what is refused.
pub(crate) fn read_metadata(path: &Path) -> EmbeddingResult<HashMap<String, String>> {
    let inspected = File::open(path).and_then(|file| {
        let end = file.metadata()?.len();
        let mut inspection = Inspection {
            reader: Reader { file: BufReader::new(file), place: 0 },
            metadata: HashMap::new(),
            external: BTreeSet::new(),
            nodes: 0,
            tensors: 0,
        };
        inspection.model(end)?;
        check_external(path, &inspection.external)?;
        Ok(inspection.metadata)
    });
    inspected.map_err(|error| broken(format!("{} is not used: {error}", path.display())))
}

/// Refuse data of tensors that is not beside the file.
fn check_external(path: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(".")).canonicalize()?;
    for name in names {
        let apart = folder.join(name).canonicalize();
        if apart.as_ref().is_ok_and(|apart| !apart.starts_with(&folder)) || name.contains("..") || name.starts_with('/')
        {
            return Err(refusal(format!("its weights lie in {:?}, outside of its folder", excerpt(name, 200))));
        }
        if !apart.is_ok_and(|apart| apart.is_file()) {
            return Err(refusal(format!("the file {:?} of its weights is missing", excerpt(name, 200))));
        }
    }
    Ok(())
}

fn refusal(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

struct Inspection {
    reader: Reader,
    metadata: HashMap<String, String>,
    external: BTreeSet<String>,
    nodes: usize,
    tensors: usize,
}

// The numbers are those of fields in onnx.proto.
impl Inspection {
    fn model(&mut self, end: u64) -> io::Result<()> {
        let mut graphs = 0;
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                7 => {
                    graphs += 1;
                    self.graph(field.message()?)?;
                }
                8 => self.operator_set(field.message()?)?,
                14 => self.entry(field.message()?)?,
                20 | 25 => return Err(refusal("it holds functions or training steps")),
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        if graphs == 1 { Ok(()) } else { Err(refusal(format!("it holds {graphs} graphs, expected one"))) }
    }

    fn operator_set(&mut self, end: u64) -> io::Result<()> {
        while let Some(field) = self.reader.next(end)? {
            if field.number == 1 {
                self.domain(&field)?;
            }
            self.reader.go_to(field.end)?;
        }
        Ok(())
    }

    fn domain(&mut self, field: &Field) -> io::Result<()> {
        let domain = self.reader.text(field, LONGEST_TEXT)?;
        if DOMAINS.contains(&domain.as_str()) {
            return Ok(());
        }
        Err(refusal(format!("it needs operators of {:?}, which are not ONNX Runtime's own", excerpt(&domain, 100))))
    }

    fn entry(&mut self, end: u64) -> io::Result<()> {
        let (mut key, mut value) = (String::new(), String::new());
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                1 => key = self.reader.text(&field, LONGEST_TEXT)?,
                // A key comes before its value.
                2 => {
                    let longest = if key == TOKENIZER { LONGEST_TOKENIZER } else { LONGEST_TEXT };
                    value = self.reader.text(&field, longest)?;
                }
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        if self.metadata.len() >= MAX_TENSORS {
            return Err(refusal("its metadata are too long"));
        }
        self.metadata.insert(key, value);
        Ok(())
    }

    fn graph(&mut self, end: u64) -> io::Result<()> {
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                1 => self.node(field.message()?)?,
                5 => self.tensor(field.message()?)?,
                15 => return Err(refusal("it holds sparse tensors")),
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        Ok(())
    }

    fn node(&mut self, end: u64) -> io::Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(refusal(format!("it has more than {MAX_NODES} nodes")));
        }
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                5 => self.attribute(field.message()?)?,
                7 => self.domain(&field)?,
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        Ok(())
    }

    fn attribute(&mut self, end: u64) -> io::Result<()> {
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                5 | 10 => self.tensor(field.message()?)?,
                6 | 11 => return Err(refusal("an operator holds a graph of its own, as loops and branches do")),
                22 | 23 => return Err(refusal("it holds sparse tensors")),
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> io::Result<()> {
        self.tensors += 1;
        if self.tensors > MAX_TENSORS {
            return Err(refusal(format!("it has more than {MAX_TENSORS} tensors")));
        }
        while let Some(field) = self.reader.next(end)? {
            if field.number == 13 {
                self.external_data(field.message()?)?;
            }
            self.reader.go_to(field.end)?;
        }
        Ok(())
    }

    fn external_data(&mut self, end: u64) -> io::Result<()> {
        let (mut key, mut value) = (String::new(), String::new());
        while let Some(field) = self.reader.next(end)? {
            match field.number {
                1 => key = self.reader.text(&field, LONGEST_TEXT)?,
                2 => value = self.reader.text(&field, LONGEST_TEXT)?,
                _ => {}
            }
            self.reader.go_to(field.end)?;
        }
        if key == "location" {
            self.external.insert(value);
        }
        Ok(())
    }
}

/// A field of a message: where it ends, and where its bytes begin if it has a length.
struct Field {
    number: u64,
    start: Option<u64>,
    end: u64,
}

impl Field {
    /// The end of a field that is a message, at whose beginning the reader stands.
    fn message(&self) -> io::Result<u64> {
        self.start.map(|_| self.end).ok_or_else(|| refusal("a number stands where a message belongs"))
    }
}

struct Reader {
    file: BufReader<File>,
    place: u64,
}

impl Reader {
    /// Read the head of the next field of a message that ends there.
    fn next(&mut self, end: u64) -> io::Result<Option<Field>> {
        if self.place == end {
            return Ok(None);
        }
        let tag = self.integer()?;
        let (start, length) = match tag & 7 {
            0 => {
                self.integer()?;
                (None, 0)
            }
            1 => (None, 8),
            2 => {
                let length = self.integer()?;
                (Some(self.place), length)
            }
            5 => (None, 4),
            kind => return Err(refusal(format!("it is not a whole ONNX file (a field of the unknown kind {kind})"))),
        };
        let left = end.saturating_sub(self.place);
        if self.place > end || length > left {
            return Err(refusal(format!(
                "it is not a whole ONNX file (a field of {length} bytes where {left} are left)"
            )));
        }
        Ok(Some(Field { number: tag >> 3, start, end: self.place + length }))
    }

    fn integer(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte).map_err(cut_off)?;
            self.place += 1;
            number |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or_default();
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(refusal("it is not a whole ONNX file (a number is too long)"))
    }

    fn text(&mut self, field: &Field, longest: u64) -> io::Result<String> {
        let length = field.message()? - self.place;
        if length > longest {
            return Err(refusal(format!("it holds a text of {length} bytes, more than {longest}")));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes).map_err(cut_off)?;
        self.place += length;
        String::from_utf8(bytes).map_err(|_| refusal("it holds a text that is not UTF-8"))
    }

    fn go_to(&mut self, place: u64) -> io::Result<()> {
        self.file.seek_relative((place - self.place) as i64)?;
        self.place = place;
        Ok(())
    }
}

fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => refusal("it is not a whole ONNX file (it is cut off)"),
        _ => error,
    }
}
