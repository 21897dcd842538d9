// Package selection chooses a label for an embedding: a model, a tool or a queue. Selectors are trained in Python by
// akidb-mlx, or by vLLM's semantic-router, and read from their JSON.
//
// A selector is safe to use from many goroutines, also while one closes it: calls that run finish, and later ones
// return ErrClosed.
//
// The package links the static library of the crate akidb-selection, which `make bindings` builds.
package selection

/*
#cgo CFLAGS: -I${SRCDIR}/../../crates/akidb-selection/include
#cgo LDFLAGS: ${SRCDIR}/../../target/release/libakidb_selection.a
#cgo linux LDFLAGS: -lm -ldl -lpthread
#include "akidb_selection.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// Reasons of an Error, for errors.Is.
var (
	ErrClosed          = errors.New("the selector is closed")
	ErrInvalidSelector = errors.New("the JSON is not a selector that can be used")
	ErrInvalidQuery    = errors.New("the query cannot be used")
	ErrNotTrained      = errors.New("the selector is not trained")
	ErrNotFinite       = errors.New("a score is not finite")
	ErrInternal        = errors.New("a defect of akidb-selection")
)

// Error is the error of reading a selector and of asking it. Its message names the cause, the value that was found and,
// where there is one, the field of the file.
type Error struct {
	reason  error
	message string
}

// Error returns the message.
func (e *Error) Error() string {
	if e == nil || e.reason == nil {
		return ErrInternal.Error()
	}
	return e.message
}

// Unwrap returns the reason, one of the package's Err variables.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.reason
}

// errNil is the error of a selector that is nil, as the one that a failed FromJSON returns.
var errNil = &Error{ErrClosed, "the selector is nil"}

// Score is the score of one label.
type Score struct {
	Label string
	Value float64
}

// Selector chooses a label for a vector. Make one with FromJSON; its zero value is closed, and so is a nil one.
type Selector struct {
	mutex     sync.RWMutex
	handle    C.AkidbSelector
	labels    []string
	algorithm string
	dimension int
	trained   bool
	cleanup   runtime.Cleanup
}

// FromJSON reads a selector of any algorithm from at most 512 MiB of JSON.
func FromJSON(text string) (*Selector, error) { return FromJSONWithin(text, 0) }

// FromJSONWithin reads a selector of any algorithm from at most maxBytes of JSON; 0 stands for 512 MiB.
func FromJSONWithin(text string, maxBytes uint64) (*Selector, error) {
	var handle C.AkidbSelector
	var message C.struct_AkidbText
	data := (*C.uint8_t)(unsafe.StringData(text))
	status := C.akidb_selector_from_json(data, C.uintptr_t(len(text)), C.uint64_t(maxBytes), &handle, &message)
	if err := failure(status, &message); err != nil {
		return nil, err
	}
	selector := &Selector{handle: handle}
	if err := selector.describe(); err != nil {
		selector.Close()
		return nil, err
	}
	// A selector that nobody closed is closed when nobody holds it.
	selector.cleanup = runtime.AddCleanup(selector, func(handle C.AkidbSelector) {
		C.akidb_selector_close(handle, nil)
	}, handle)
	return selector, nil
}

// describe asks for what does not change.
func (s *Selector) describe() error {
	var count, dimension C.uintptr_t
	var trained C.bool
	var algorithm, message C.struct_AkidbText
	if err := failure(C.akidb_selector_label_count(s.handle, &count, &message), &message); err != nil {
		return err
	}
	if err := failure(C.akidb_selector_dimension(s.handle, &dimension, &message), &message); err != nil {
		return err
	}
	if err := failure(C.akidb_selector_is_trained(s.handle, &trained, &message), &message); err != nil {
		return err
	}
	if err := failure(C.akidb_selector_algorithm(s.handle, &algorithm, &message), &message); err != nil {
		return err
	}
	s.algorithm, s.dimension, s.trained = take(&algorithm), int(dimension), bool(trained)
	s.labels = make([]string, count)
	for index := range s.labels {
		var label C.struct_AkidbText
		status := C.akidb_selector_label(s.handle, C.uintptr_t(index), &label, &message)
		if err := failure(status, &message); err != nil {
			return err
		}
		s.labels[index] = take(&label)
	}
	return nil
}

// Algorithm returns "knn", "kmeans", "svm" or "mlp".
func (s *Selector) Algorithm() string {
	if s == nil {
		return ""
	}
	return s.algorithm
}

// Dimension returns how many values a vector has; 0 where the file does not tell, as an SVM without classifiers.
func (s *Selector) Dimension() int {
	if s == nil {
		return 0
	}
	return s.dimension
}

// Labels returns the labels that may be chosen, each once.
func (s *Selector) Labels() []string {
	if s == nil {
		return nil
	}
	return append([]string(nil), s.labels...)
}

// IsTrained returns whether the selector can choose. A closed one cannot.
func (s *Selector) IsTrained() bool {
	if s == nil {
		return false
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.handle != 0 && s.trained
}

// Select returns the label of a vector.
func (s *Selector) Select(vector []float64) (string, error) {
	if s == nil {
		return "", errNil
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	var label C.uintptr_t
	var message C.struct_AkidbText
	status := C.akidb_selector_select(s.handle, pointer(vector), C.uintptr_t(len(vector)), &label, &message)
	if err := failure(status, &message); err != nil {
		return "", err
	}
	return s.labels[label], nil
}

// SelectBatch returns the label of each of several vectors, faster than one by one.
func (s *Selector) SelectBatch(vectors [][]float64) ([]string, error) {
	if s == nil {
		return nil, errNil
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if len(vectors) > 0 && s.handle != 0 && s.trained {
		if err := s.check(vectors); err != nil {
			return nil, err
		}
	}
	var flat []float64
	width := 0
	if len(vectors) > 0 {
		width = len(vectors[0])
		flat = make([]float64, 0, len(vectors)*width)
	}
	for _, vector := range vectors {
		flat = append(flat, vector[:min(width, len(vector))]...)
	}
	labels := make([]C.uintptr_t, len(vectors))
	var message C.struct_AkidbText
	status := C.akidb_selector_select_batch(s.handle, pointer(flat), C.uintptr_t(len(vectors)), C.uintptr_t(width),
		unsafe.SliceData(labels), &message)
	if err := failure(status, &message); err != nil {
		return nil, err
	}
	found := make([]string, len(vectors))
	for index, label := range labels {
		found[index] = s.labels[label]
	}
	return found, nil
}

// check refuses vectors that do not all have the selector's length, which the library sees as one piece of memory.
func (s *Selector) check(vectors [][]float64) error {
	for index, vector := range vectors {
		switch {
		case s.dimension != 0 && len(vector) != s.dimension:
			plural := "s"
			if len(vector) == 1 {
				plural = ""
			}
			return &Error{ErrInvalidQuery, fmt.Sprintf("vector %d has %d value%s, and the selector takes %d",
				index, len(vector), plural, s.dimension)}
		case len(vector) == 0:
			return &Error{ErrInvalidQuery, fmt.Sprintf("vector %d is empty", index)}
		}
		for place, value := range vector {
			if math.IsNaN(value) || math.IsInf(value, 0) {
				return &Error{ErrInvalidQuery,
					fmt.Sprintf("vector %d is not finite: its value %d is %v", index, place, value)}
			}
		}
	}
	return nil
}

// Scores returns the scores of a vector.
//
// KNN: the sum of votes of each label that got any, by label. K-means: minus the squared distance of each label's
// nearest centroid. SVM: each classifier's decision value, those of linear ones first; a label may occur twice.
// MLP: the outputs.
func (s *Selector) Scores(vector []float64) ([]Score, error) {
	if s == nil {
		return nil, errNil
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	var scores C.struct_AkidbScores
	var message C.struct_AkidbText
	status := C.akidb_selector_scores(s.handle, pointer(vector), C.uintptr_t(len(vector)), &scores, &message)
	if err := failure(status, &message); err != nil {
		return nil, err
	}
	defer C.akidb_scores_free(&scores)
	found := make([]Score, scores.length)
	for index, score := range unsafe.Slice(scores.data, scores.length) {
		found[index] = Score{s.labels[score.label], float64(score.value)}
	}
	return found, nil
}

// ToJSON returns the selector's JSON, with all fields that were read, also unknown ones, in their order.
func (s *Selector) ToJSON() (string, error) {
	if s == nil {
		return "", errNil
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	var json, message C.struct_AkidbText
	if err := failure(C.akidb_selector_to_json(s.handle, &json, &message), &message); err != nil {
		return "", err
	}
	return take(&json), nil
}

// Close frees the selector. Calls that run finish first; a second Close does nothing.
func (s *Selector) Close() {
	if s == nil {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.handle != 0 {
		s.cleanup.Stop()
		C.akidb_selector_close(s.handle, nil)
		s.handle = 0
	}
}

// failure returns the error of a call, and frees its message.
func failure(status C.AkidbStatus, message *C.struct_AkidbText) error {
	if status == C.AKIDB_STATUS_OK {
		return nil
	}
	reasons := map[C.AkidbStatus]error{
		C.AKIDB_STATUS_CLOSED:           ErrClosed,
		C.AKIDB_STATUS_INVALID_SELECTOR: ErrInvalidSelector,
		C.AKIDB_STATUS_INVALID_QUERY:    ErrInvalidQuery,
		C.AKIDB_STATUS_NOT_TRAINED:      ErrNotTrained,
		C.AKIDB_STATUS_NOT_FINITE:       ErrNotFinite,
	}
	reason, known := reasons[status]
	if !known {
		reason = ErrInternal
	}
	return &Error{reason, take(message)}
}

// take returns a text, and frees it.
func take(text *C.struct_AkidbText) string {
	copied := string(unsafe.Slice((*byte)(unsafe.Pointer(text.data)), text.length))
	C.akidb_text_free(text)
	return copied
}

func pointer(values []float64) *C.double {
	return (*C.double)(unsafe.Pointer(unsafe.SliceData(values)))
}
