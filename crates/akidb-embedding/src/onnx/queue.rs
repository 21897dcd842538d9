//! The thread that owns a model, and the batches that it makes of the calls that wait.
//!
//! A call's future may be dropped at any time: its channel is closed then, and what has not run of it is left out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, thread};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::session::Model;
use super::text::Ids;
use crate::EmbeddingResult;
use crate::failures::{broken, closed};

/// Most tokens of a batch, padding included; a single longer sequence runs alone. Twice what is best for one core, as all
/// cores share a batch.
const TOKEN_BUDGET: usize = 1024;
/// Sequences of other calls join a batch if at least this share of their row is no padding.
const LEAST_FILLED: (usize, usize) = (3, 4);

/// A call that waits for the vectors of its sequences.
pub(crate) struct Call {
    /// Those that have not run, the shortest first, each with its place in `vectors`.
    waiting: Vec<(usize, Ids)>,
    pending: usize,
    vectors: Vec<f32>,
    answer: oneshot::Sender<EmbeddingResult<Vec<f32>>>,
    _place: OwnedSemaphorePermit,
}

impl Call {
    /// Make a call for one sequence or more, which holds a place among those that wait until it is done.
    pub(crate) fn new(
        sequences: impl IntoIterator<Item = Ids>,
        dimension: usize,
        answer: oneshot::Sender<EmbeddingResult<Vec<f32>>>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let mut waiting: Vec<(usize, Ids)> = sequences.into_iter().enumerate().collect();
        waiting.sort_by_key(|(_, ids)| ids.len());
        let pending = waiting.len();
        Self { waiting, pending, vectors: vec![0.0; pending * dimension], answer, _place: place }
    }

    fn end(self, error: Option<crate::EmbeddingError>) {
        let _ = self.answer.send(error.map_or(Ok(self.vectors), Err));
    }
}

pub(crate) enum Message {
    Embed(Call),
    /// Fail what waits, free the model, and answer.
    Close(oneshot::Sender<()>),
}

/// Start a thread that owns a model until it is closed, or until nobody can send any more.
pub(crate) fn spawn(model: Model, dimension: usize) -> io::Result<mpsc::UnboundedSender<Message>> {
    let (messages, inbox) = mpsc::unbounded_channel();
    thread::Builder::new().name("akidb-onnx".to_owned()).spawn(move || {
        Owner { model, dimension, inbox, calls: VecDeque::new() }.run();
    })?;
    Ok(messages)
}

struct Owner {
    model: Model,
    dimension: usize,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// Those that are not done; the first has the next turn.
    calls: VecDeque<Call>,
}

impl Owner {
    fn run(mut self) {
        let answer = loop {
            let message = if self.calls.is_empty() { self.inbox.blocking_recv() } else { self.inbox.try_recv().ok() };
            match message {
                Some(Message::Embed(call)) => self.calls.push_back(call),
                Some(Message::Close(answer)) => break Some(answer),
                None if self.calls.is_empty() => break None,
                None => self.step(),
            }
        };
        self.inbox.close();
        while let Ok(Message::Embed(call)) = self.inbox.try_recv() {
            self.calls.push_back(call);
        }
        self.calls.drain(..).for_each(|call| call.end(Some(closed())));
        drop(self.model);
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }

    /// Run a batch, and answer the calls that are done.
    fn step(&mut self) {
        self.calls.retain(|call| !call.answer.is_closed());
        let batch = self.take_batch();
        self.compute(batch);
        let (done, open): (VecDeque<Call>, _) = self.calls.drain(..).partition(|call| call.pending == 0);
        self.calls = open;
        done.into_iter().for_each(|call| call.end(None));
        // So that each call has its turn.
        if !self.calls.is_empty() {
            self.calls.rotate_left(1);
        }
    }

    /// Take the longest sequences of the call whose turn it is, and those of others that are about as long.
    fn take_batch(&mut self) -> Vec<Sequence> {
        let mut batch: Vec<Sequence> = Vec::new();
        let mut longest = 0;
        for (call, held) in self.calls.iter_mut().enumerate() {
            let fits = |ids: &Ids| longest == 0 || ids.len() <= longest;
            let mut end = held.waiting.partition_point(|(_, ids)| fits(ids));
            while let Some((_, ids)) = end.checked_sub(1).map(|last| &held.waiting[last]) {
                let (filled, of) = LEAST_FILLED;
                let apart = longest > 0 && ids.len() * of < longest * filled;
                if apart || (longest > 0 && (batch.len() + 1) * longest > TOKEN_BUDGET) {
                    break;
                }
                longest = longest.max(ids.len());
                end -= 1;
                let (place, ids) = held.waiting.remove(end);
                batch.push(Sequence { call, place, ids });
            }
            if longest > 0 && (batch.len() + 1) * longest > TOKEN_BUDGET {
                break;
            }
        }
        batch
    }

    /// Run sequences; where several calls share a batch that fails, each is tried alone.
    fn compute(&mut self, batch: Vec<Sequence>) {
        let Some(first) = batch.first().map(|one| one.call) else { return };
        let rows: Vec<&Ids> = batch.iter().map(|one| &one.ids).collect();
        let ran = catch_unwind(AssertUnwindSafe(|| self.model.run(&rows)));
        match ran.unwrap_or_else(|_| Err(broken("ONNX Runtime's wrapper panicked"))) {
            Ok(vectors) => {
                for (one, vector) in batch.iter().zip(vectors.chunks_exact(self.dimension)) {
                    let call = &mut self.calls[one.call];
                    call.vectors[one.place * self.dimension..][..self.dimension].copy_from_slice(vector);
                    call.pending -= 1;
                }
            }
            Err(_) if batch.iter().any(|one| one.call != first) => {
                let (own, others) = batch.into_iter().partition(|one| one.call == first);
                self.compute(own);
                self.compute(others);
            }
            // Its place stays, as others are found by theirs; it is taken out when nobody waits for it.
            Err(error) => {
                let call = &mut self.calls[first];
                let answer = std::mem::replace(&mut call.answer, oneshot::channel().0);
                let _ = answer.send(Err(error));
                call.waiting.clear();
            }
        }
    }
}

/// A sequence in a batch, with the index of its call.
struct Sequence {
    call: usize,
    place: usize,
    ids: Ids,
}
