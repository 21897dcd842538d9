//! The C ABI, called as C calls it.

use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::thread;

use akidb_selection::ffi::*;

const KNN: &str =
    r#"{"algorithm":"knn","trained":true,"k":1,"embeddings":[[0.0],[1.0],[2.0]],"labels":["a\u0000b","é","c"]}"#;
const NO_TEXT: AkidbText = AkidbText { data: null_mut(), length: 0 };

fn open(json: &str) -> (AkidbStatus, AkidbSelector, String) {
    let mut selector = 7;
    let message =
        message(|text| unsafe { akidb_selector_from_json(json.as_ptr(), json.len(), 0, &raw mut selector, text) });
    (message.0, selector, message.1)
}

/// Return the status of a call and its message.
fn message(call: impl FnOnce(*mut AkidbText) -> AkidbStatus) -> (AkidbStatus, String) {
    let mut text = NO_TEXT;
    let status = call(&raw mut text);
    (status, take(&mut text))
}

fn take(text: &mut AkidbText) -> String {
    if text.data.is_null() {
        return String::new();
    }
    let copy = unsafe { std::slice::from_raw_parts(text.data, text.length) }.to_vec();
    unsafe { akidb_text_free(text) };
    assert!(text.data.is_null());
    unsafe { akidb_text_free(text) };
    String::from_utf8(copy).unwrap()
}

fn label(selector: AkidbSelector, index: usize) -> String {
    let mut text = NO_TEXT;
    assert_eq!(unsafe { akidb_selector_label(selector, index, &raw mut text, null_mut()) }, AkidbStatus::Ok);
    take(&mut text)
}

#[test]
fn a_whole_life() {
    let (status, selector, _) = open(KNN);
    assert_eq!(status, AkidbStatus::Ok);
    let (mut count, mut dimension, mut trained, mut found) = (0, 0, false, 0);
    let none = null_mut();
    unsafe {
        assert_eq!(akidb_selector_label_count(selector, &raw mut count, none), AkidbStatus::Ok);
        assert_eq!(akidb_selector_dimension(selector, &raw mut dimension, none), AkidbStatus::Ok);
        assert_eq!(akidb_selector_is_trained(selector, &raw mut trained, none), AkidbStatus::Ok);
        assert_eq!((count, dimension, trained), (3, 1, true));
        assert_eq!(akidb_selector_select(selector, [0.9].as_ptr(), 1, &raw mut found, none), AkidbStatus::Ok);
        assert_eq!(label(selector, found), "é");
        let mut labels = [9; 3];
        let queries = [0.0, 2.0, 1.0];
        let status = akidb_selector_select_batch(selector, queries.as_ptr(), 3, 1, labels.as_mut_ptr(), none);
        assert_eq!(status, AkidbStatus::Ok);
        assert_eq!(labels.map(|place| label(selector, place)), ["a\0b", "c", "é"]);
        assert_eq!(akidb_selector_select_batch(selector, null(), 0, 1, null_mut(), none), AkidbStatus::Ok);
        let mut scores = AkidbScores { data: null_mut(), length: 0 };
        assert_eq!(akidb_selector_scores(selector, [2.0].as_ptr(), 1, &raw mut scores, none), AkidbStatus::Ok);
        assert_eq!((scores.length, (*scores.data).value), (1, 0.9 * 0.5 + 0.1));
        akidb_scores_free(&raw mut scores);
        akidb_scores_free(&raw mut scores);
        let mut json = NO_TEXT;
        assert_eq!(akidb_selector_to_json(selector, &raw mut json, none), AkidbStatus::Ok);
        assert_eq!(take(&mut json), KNN);
        assert_eq!(akidb_selector_algorithm(selector, &raw mut json, none), AkidbStatus::Ok);
        assert_eq!(take(&mut json), "knn");
        assert_eq!(akidb_selector_close(selector, none), AkidbStatus::Ok);
    }
    let closed = (AkidbStatus::Closed, "the selector is closed".to_owned());
    assert_eq!(message(|text| unsafe { akidb_selector_close(selector, text) }), closed);
    assert_eq!(
        message(|text| unsafe { akidb_selector_select(selector, [0.0].as_ptr(), 1, &raw mut found, text) }),
        closed
    );
    assert_eq!(message(|text| unsafe { akidb_selector_is_trained(0, &raw mut trained, text) }), closed);
}

#[test]
fn failures_have_a_status_and_a_message() {
    let (status, selector, text) = open(r#"{"algorithm": "knn"}"#);
    assert_eq!((status, selector, text.as_str()), (AkidbStatus::InvalidSelector, 0, "trained is missing"));
    let (_, selector, _) = open(KNN);
    let (mut found, mut unused) = (5, NO_TEXT);
    let select = |query: &[f64]| {
        let mut label = 0;
        message(|text| unsafe { akidb_selector_select(selector, query.as_ptr(), query.len(), &raw mut label, text) })
    };
    let refused = |text: &str| (AkidbStatus::InvalidQuery, text.to_owned());
    assert_eq!(select(&[f64::NAN]), refused("the vector is not finite: its value 0 is NaN"));
    assert_eq!(select(&[0.0, 1.0]), refused("the vector has 2 values, and the selector takes 1"));
    assert_eq!(select(&[]), refused("the vector has 0 values, and the selector takes 1"));
    let invalid = |text: &str| (AkidbStatus::InvalidArgument, text.to_owned());
    unsafe {
        assert_eq!(
            message(|text| akidb_selector_select(selector, null(), 1, &raw mut found, text)),
            invalid("query is null")
        );
        assert_eq!(
            message(|text| akidb_selector_select(selector, [0.0].as_ptr(), 1, null_mut(), text)),
            invalid("label is null")
        );
        assert_eq!(message(|text| akidb_selector_from_json(null(), 5, 0, &mut 0, text)), invalid("json is null"));
        assert_eq!(
            message(|text| akidb_selector_from_json(KNN.as_ptr(), 5, 0, null_mut(), text)),
            invalid("selector is null")
        );
        assert_eq!(
            message(|text| akidb_selector_select(selector, [0.0].as_ptr(), usize::MAX, &raw mut found, text)),
            invalid(&format!("query cannot have {} values", usize::MAX))
        );
        assert_eq!(
            message(|text| akidb_selector_select_batch(selector, [0.0].as_ptr(), usize::MAX, 2, &raw mut found, text)),
            invalid("count * length is too large")
        );
        assert_eq!(
            message(|text| akidb_selector_select_batch(selector, [0.0].as_ptr(), 1, 1, null_mut(), text)),
            invalid("labels is null")
        );
        assert_eq!(
            message(|text| akidb_selector_select_batch(selector, null(), 3, 0, &raw mut found, text)),
            refused("vector 0 has 0 values, and the selector takes 1")
        );
        assert_eq!(
            message(|text| akidb_selector_label(selector, 3, &raw mut unused, text)),
            invalid("index is 3, and there are 3 labels")
        );
        assert_eq!(
            message(|text| akidb_selector_scores(selector, [0.0].as_ptr(), 1, null_mut(), text)),
            invalid("scores is null")
        );
        assert_eq!(message(|text| akidb_selector_to_json(selector, null_mut(), text)), invalid("json is null"));
        // A limit, and no place for the message.
        let status = akidb_selector_from_json(KNN.as_ptr(), KNN.len(), 5, &mut 0, null_mut());
        assert_eq!(status, AkidbStatus::InvalidSelector);
        akidb_text_free(null_mut());
        akidb_scores_free(null_mut());
    }
    assert_eq!(found, 5);
    let (_, untrained, _) = open(&KNN.replace("true", "false"));
    let (status, _) =
        message(|text| unsafe { akidb_selector_select(untrained, [0.0].as_ptr(), 1, &raw mut found, text) });
    assert_eq!(status, AkidbStatus::NotTrained);
}

/// Return memory with a content that no call may read.
fn garbage<T>() -> MaybeUninit<T> {
    let mut memory = MaybeUninit::<T>::uninit();
    unsafe { memory.as_mut_ptr().write_bytes(0xA5, 1) };
    memory
}

#[test]
fn what_is_empty_is_null() {
    let text = r#"{"algorithm":"svm","trained":true,"model_names":[""],"kernel_type":"Rbf","gamma":1,
        "linear_classifiers":[],"rbf_classifiers":[]}"#;
    let (_, selector, _) = open(text);
    let (mut name, mut scores) = (garbage::<AkidbText>(), garbage::<AkidbScores>());
    unsafe {
        assert_eq!(akidb_selector_label(selector, 0, name.as_mut_ptr(), null_mut()), AkidbStatus::Ok);
        let query = [1.0];
        let status = akidb_selector_scores(selector, query.as_ptr(), 1, scores.as_mut_ptr(), null_mut());
        assert_eq!(status, AkidbStatus::Ok);
        let (mut name, mut scores) = (name.assume_init(), scores.assume_init());
        assert!(name.data.is_null() && scores.data.is_null());
        assert_eq!((name.length, scores.length), (0, 0));
        akidb_text_free(&raw mut name);
        akidb_scores_free(&raw mut scores);
    }
}

#[test]
fn a_result_is_written_before_anything_can_fail() {
    let (_, selector, _) = open(KNN);
    let (mut handle, mut scores) = (garbage::<AkidbSelector>(), garbage::<AkidbScores>());
    let (mut json, mut name, mut label) = (garbage::<AkidbText>(), garbage::<AkidbText>(), garbage::<AkidbText>());
    let (none, invalid) = (null_mut(), AkidbStatus::InvalidArgument);
    unsafe {
        assert_eq!(akidb_selector_from_json(null(), 5, 0, handle.as_mut_ptr(), none), invalid);
        assert_eq!(handle.assume_init(), 0);
        assert_eq!(akidb_selector_scores(selector, null(), 1, scores.as_mut_ptr(), none), invalid);
        assert!(scores.assume_init().data.is_null());
        assert_eq!(akidb_selector_to_json(0, json.as_mut_ptr(), none), AkidbStatus::Closed);
        assert_eq!(akidb_selector_algorithm(0, name.as_mut_ptr(), none), AkidbStatus::Closed);
        assert_eq!(akidb_selector_label(selector, 9, label.as_mut_ptr(), none), invalid);
        for text in [json, name, label] {
            assert!(text.assume_init().data.is_null());
        }
        let mut trained = garbage::<bool>();
        assert_eq!(akidb_selector_is_trained(selector, trained.as_mut_ptr(), none), AkidbStatus::Ok);
        assert!(trained.assume_init());
    }
}

#[test]
fn closing_while_others_call() {
    for _ in 0..50 {
        let (_, selector, _) = open(KNN);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut found = 0;
                    while unsafe { akidb_selector_select(selector, [1.0].as_ptr(), 1, &raw mut found, null_mut()) }
                        == AkidbStatus::Ok
                    {
                        assert_eq!(found, 2);
                    }
                });
            }
            thread::yield_now();
            assert_eq!(unsafe { akidb_selector_close(selector, null_mut()) }, AkidbStatus::Ok);
        });
    }
}
