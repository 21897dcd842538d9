/* Made by cbindgen from src/ffi.rs: AKIDB_WRITE_HEADER=1 cargo test -p akidb-selection --test header */

#ifndef AKIDB_SELECTION_H
#define AKIDB_SELECTION_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

// The outcome of a call.
enum AkidbStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The call succeeded.
  AKIDB_STATUS_OK = 0,
  // A pointer is null, or an index is out of range.
  AKIDB_STATUS_INVALID_ARGUMENT = 1,
  // The handle is closed, or never was one.
  AKIDB_STATUS_CLOSED = 2,
  // The JSON is not a selector that can be used.
  AKIDB_STATUS_INVALID_SELECTOR = 3,
  // A query has another length than the selector takes, or is not finite.
  AKIDB_STATUS_INVALID_QUERY = 4,
  // The selector was saved before it was trained.
  AKIDB_STATUS_NOT_TRAINED = 5,
  // A score is too large for a double.
  AKIDB_STATUS_NOT_FINITE = 6,
  // A defect of this library.
  AKIDB_STATUS_INTERNAL = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum AkidbStatus AkidbStatus;
#else
typedef int32_t AkidbStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// An open selector. 0 is none.
typedef uint64_t AkidbSelector;

// Text in UTF-8 that the caller owns and frees with `akidb_text_free`. It may contain NUL, and does not end with one.
typedef struct AkidbText {
  // Null where there is no text, and where it is empty.
  uint8_t *data;
  // Number of bytes.
  uintptr_t length;
} AkidbText;

// The score of one label.
typedef struct AkidbScore {
  // Place of the label; `akidb_selector_label` returns its text.
  uintptr_t label;
  // Its score.
  double value;
} AkidbScore;

// Scores that the caller owns and frees with `akidb_scores_free`.
typedef struct AkidbScores {
  // Null where there are none.
  struct AkidbScore *data;
  // Number of scores.
  uintptr_t length;
} AkidbScores;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Read a selector from `length` bytes of JSON.
//
// `max_bytes` limits the length; 0 stands for 512 MiB. On success `*selector` is a handle, which
// `akidb_selector_close` closes. On failure it is 0, and `*message` has the reason, which `akidb_text_free` frees.
// `message` may be null.
//
// # Safety
//
// `json` is valid for `length` bytes, `selector` for a write, and `message` for a write or null.
AkidbStatus akidb_selector_from_json(const uint8_t *json,
                                     uintptr_t length,
                                     uint64_t max_bytes,
                                     AkidbSelector *selector,
                                     struct AkidbText *message);

// Close a selector; calls that run finish first. Closing it again is `Closed`.
//
// # Safety
//
// `message` is valid for a write or null.
AkidbStatus akidb_selector_close(AkidbSelector selector, struct AkidbText *message);

// Write the place of the label of a query of `length` values to `*label`, which a failure leaves as it is.
//
// # Safety
//
// `query` is valid for `length` values, `label` for a write, and `message` for a write or null.
AkidbStatus akidb_selector_select(AkidbSelector selector,
                                  const double *query,
                                  uintptr_t length,
                                  uintptr_t *label,
                                  struct AkidbText *message);

// Write the places of the labels of `count` queries to `labels`. The queries stand one after the other, each with
// `length` values. On failure nothing is written to `labels`.
//
// # Safety
//
// `queries` is valid for `count * length` values, `labels` for writing `count`, and `message` for a write or null.
AkidbStatus akidb_selector_select_batch(AkidbSelector selector,
                                        const double *queries,
                                        uintptr_t count,
                                        uintptr_t length,
                                        uintptr_t *labels,
                                        struct AkidbText *message);

// Write the scores of a query of `length` values to `*scores`.
//
// # Safety
//
// `query` is valid for `length` values, `scores` for a write, and `message` for a write or null.
AkidbStatus akidb_selector_scores(AkidbSelector selector,
                                  const double *query,
                                  uintptr_t length,
                                  struct AkidbScores *scores,
                                  struct AkidbText *message);

// Write the number of labels to `*count`.
//
// # Safety
//
// `count` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_label_count(AkidbSelector selector,
                                       uintptr_t *count,
                                       struct AkidbText *message);

// Write the text of the label at a place to `*label`.
//
// # Safety
//
// `label` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_label(AkidbSelector selector,
                                 uintptr_t index,
                                 struct AkidbText *label,
                                 struct AkidbText *message);

// Write "knn", "kmeans", "svm" or "mlp" to `*algorithm`.
//
// # Safety
//
// `algorithm` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_algorithm(AkidbSelector selector,
                                     struct AkidbText *algorithm,
                                     struct AkidbText *message);

// Write to `*trained` whether the selector can choose.
//
// # Safety
//
// `trained` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_is_trained(AkidbSelector selector,
                                      bool *trained,
                                      struct AkidbText *message);

// Write the number of values of a query to `*dimension`; 0 where the selector takes any.
//
// # Safety
//
// `dimension` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_dimension(AkidbSelector selector,
                                     uintptr_t *dimension,
                                     struct AkidbText *message);

// Write the selector's JSON to `*json`, with all fields that were read.
//
// # Safety
//
// `json` is valid for a write, and `message` for a write or null.
AkidbStatus akidb_selector_to_json(AkidbSelector selector,
                                   struct AkidbText *json,
                                   struct AkidbText *message);

// Free a text, which becomes empty. Null, and a text that is empty already, are left alone.
//
// # Safety
//
// `text` is null, or holds a text of this library.
void akidb_text_free(struct AkidbText *text);

// Free scores, which become empty. Null, and scores that are empty already, are left alone.
//
// # Safety
//
// `scores` is null, or holds scores of this library.
void akidb_scores_free(struct AkidbScores *scores);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* AKIDB_SELECTION_H */
