//! Reading takes at most 16 times as much memory as the JSON may have bytes, whatever it holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use akidb_selection::{Error, Selector};

/// Counts the bytes that are held, and their most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all of it is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: usize = 1 << 20;
const KNN: &str = r#"{"algorithm": "knn", "trained": true, "k": 1, "embeddings": [[1.0]], "labels": ["a"], "x": "#;

/// Return a selector of about `SIZE` bytes with a list of an item again and again, between two others.
fn with_list(first: &str, item: &str, last: &str) -> String {
    let count = (SIZE - KNN.len()) / (item.len() + 1);
    format!("{KNN}[{first}{}{last}]}}", vec![item; count].join(","))
}

// One test, since all threads share the count.
#[test]
fn reading_is_bounded() {
    let deep = format!("{}0{}", "[".repeat(60), "]".repeat(60));
    let plain = [
        "0",
        "0.5",
        "9007199254740993",
        "[0]",
        "[0,0,0,0,0,0,0,0]",
        "[]",
        "{}",
        "\"\"",
        "\"a\"",
        "null",
        "{\"a\":0}",
        "[0,\"\"]",
        &deep,
    ];
    let mixed = [("\"\",", "0", ""), ("0,\"\",", "0", ""), ("", "0", ",\"\""), ("", "[0]", ",\"\"")];
    for (first, item, last) in plain.map(|item| ("", item, "")).into_iter().chain(mixed) {
        let text = with_list(first, item, last);
        let limit = text.len();
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        let read = Selector::from_json_within(&text, limit as u64);
        let most = MOST.load(Relaxed) - before;
        assert!(most <= 16 * limit, "[{first}{item}, …]: {:.1} times the text", most as f64 / limit as f64);
        assert!(matches!(read, Ok(_) | Err(Error::TooManyParts { .. })), "{first}{item}: {read:?}");
    }
}
