package selection

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const (
	knnJSON = `{"algorithm":"knn","trained":true,"k":1,"embeddings":[[0.0,0.0],[1.0,0.0],[0.0,2.0]],` +
		`"labels":["a\u0000b","é","c"],"extra":{"kept":[1.5,2.5,null]}}`
	kmeansJSON = `{"algorithm":"kmeans","trained":true,"num_clusters":2,"centroids":[[0.0,0.0],[4.0,0.0]],` +
		`"cluster_models":["small","large"]}`
	svmJSON = `{"algorithm":"svm","trained":true,"model_names":["a","b"],"kernel_type":"Linear","gamma":1.0,` +
		`"linear_classifiers":[{"model_name":"a","weights":[1.0,0.0],"rho":0.0},` +
		`{"model_name":"b","weights":[0.0,1.0],"rho":0.5}],"rbf_classifiers":[]}`
	mlpJSON = `{"algorithm":"mlp","trained":true,"model_names":["a","b"],"feature_dim":2,"n_classes":2,` +
		`"hidden_sizes":[],"dropout":0.0,"layers":[{"type":"linear","in_features":2,"out_features":2,` +
		`"weight":[[1.0,0.0],[0.0,1.0]],"bias":[0.0,0.25]}]}`
)

func open(t testing.TB, text string) *Selector {
	t.Helper()
	selector, err := FromJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(selector.Close)
	return selector
}

func TestEveryAlgorithm(t *testing.T) {
	for _, test := range []struct {
		text   string
		vector []float64
		label  string
		scores []Score
	}{
		{knnJSON, []float64{0, 0.1}, "a\x00b", []Score{{"a\x00b", 0.55}}},
		{kmeansJSON, []float64{3, 0}, "large", []Score{{"small", -9}, {"large", -1}}},
		{svmJSON, []float64{0, 2}, "b", []Score{{"a", 0}, {"b", 0.5}}},
		{mlpJSON, []float64{0.5, 0.5}, "b", []Score{{"a", 0.5}, {"b", 0.75}}},
	} {
		selector := open(t, test.text)
		label, err := selector.Select(test.vector)
		if err != nil || label != test.label {
			t.Errorf("%s: Select gives %q, %v", selector.Algorithm(), label, err)
		}
		labels, err := selector.SelectBatch([][]float64{test.vector, test.vector})
		if err != nil || !reflect.DeepEqual(labels, []string{test.label, test.label}) {
			t.Errorf("%s: SelectBatch gives %q, %v", selector.Algorithm(), labels, err)
		}
		scores, err := selector.Scores(test.vector)
		if err != nil || !reflect.DeepEqual(scores, test.scores) {
			t.Errorf("%s: Scores gives %v, %v", selector.Algorithm(), scores, err)
		}
		json, err := selector.ToJSON()
		if err != nil || json != test.text {
			t.Errorf("%s: ToJSON gives %s, %v", selector.Algorithm(), json, err)
		}
		if !selector.IsTrained() || selector.Dimension() != 2 {
			t.Errorf("%s: IsTrained %v, Dimension %d", selector.Algorithm(), selector.IsTrained(), selector.Dimension())
		}
	}
}

func TestTheNamesOfEachAlgorithm(t *testing.T) {
	knn, err := KNNFromJSON(knnJSON)
	if err != nil {
		t.Fatal(err)
	}
	defer knn.Close()
	if label, err := knn.Select([]float64{1, 0}); err != nil || label != "é" {
		t.Errorf("Select gives %q, %v", label, err)
	}
	kmeans, err := KMeansFromJSON(kmeansJSON)
	if err != nil {
		t.Fatal(err)
	}
	defer kmeans.Close()
	svm, err := SVMFromJSON(svmJSON)
	if err != nil {
		t.Fatal(err)
	}
	defer svm.Close()
	mlp, err := MLPFromJSON(mlpJSON)
	if err != nil {
		t.Fatal(err)
	}
	defer mlp.Close()
	_, err = KNNFromJSON(svmJSON)
	if !errors.Is(err, ErrInvalidSelector) || err.Error() != "algorithm must be knn, found svm" {
		t.Errorf("another algorithm gives %v", err)
	}
	for _, open := range []func(string) error{
		func(text string) error { _, err := KMeansFromJSON(text); return err },
		func(text string) error { _, err := SVMFromJSON(text); return err },
		func(text string) error { _, err := MLPFromJSON(text); return err },
	} {
		if err := open(knnJSON); !errors.Is(err, ErrInvalidSelector) {
			t.Errorf("another algorithm gives %v", err)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	for text, message := range map[string]string{
		"":                             "the selector is not valid JSON: expected a value at byte 0",
		"{}":                           "algorithm is missing",
		`{"algorithm":"knn"}` + "\x00": "the selector is not valid JSON: more text after the end at byte 19",
		strings.Replace(knnJSON, `"k":1`, `"k":0`, 1):     "k must be an integer of 1 or more, found 0",
		strings.Replace(knnJSON, `1.0,0.0`, `1.0`, 1):     "embeddings[1] has 1 value and embeddings[0] has 2",
		strings.Replace(knnJSON, `1.0,0.0`, `1e999,0`, 1): "embeddings[1][0] is not a finite number",
		strings.Repeat("[", 1_000_000):                    "the selector is nested more than 64 levels deep",
	} {
		if _, err := FromJSON(text); !errors.Is(err, ErrInvalidSelector) || err.Error() != message {
			t.Errorf("%.60q gives %v", text, err)
		}
	}
	if _, err := FromJSONWithin(knnJSON, 10); !errors.Is(err, ErrInvalidSelector) {
		t.Errorf("a long text gives %v", err)
	}
	selector := open(t, knnJSON)
	for _, test := range []struct {
		vector  []float64
		message string
	}{
		{nil, "has 0 values, and the selector takes 2"},
		{[]float64{}, "has 0 values, and the selector takes 2"},
		{[]float64{1}, "has 1 value, and the selector takes 2"},
		{[]float64{1, math.NaN()}, "is not finite: its value 1 is NaN"},
	} {
		_, err := selector.Select(test.vector)
		if !errors.Is(err, ErrInvalidQuery) || err.Error() != "the vector "+test.message {
			t.Errorf("Select(%v) gives %v", test.vector, err)
		}
		_, err = selector.Scores(test.vector)
		if !errors.Is(err, ErrInvalidQuery) {
			t.Errorf("Scores(%v) gives %v", test.vector, err)
		}
		_, err = selector.SelectBatch([][]float64{{1, 2}, test.vector})
		if !errors.Is(err, ErrInvalidQuery) || err.Error() != "vector 1 "+test.message {
			t.Errorf("SelectBatch with %v gives %v", test.vector, err)
		}
	}
	for _, none := range [][][]float64{nil, {}} {
		if labels, err := selector.SelectBatch(none); err != nil || len(labels) != 0 {
			t.Errorf("no vectors give %v, %v", labels, err)
		}
	}
	untrained := open(t, strings.Replace(knnJSON, "true", "false", 1))
	if _, err := untrained.Select([]float64{1, 2}); !errors.Is(err, ErrNotTrained) || untrained.IsTrained() {
		t.Errorf("an untrained selector gives %v", err)
	}
	if _, err := untrained.SelectBatch([][]float64{{1}, {1, 2}}); !errors.Is(err, ErrNotTrained) {
		t.Errorf("an untrained selector gives %v", err)
	}
	votes := open(t, strings.Replace(strings.Replace(knnJSON, `"k":1`, `"k":3`, 1), `"labels":["a\u0000b","é","c"]`,
		`"labels":["a","a","b"],"qualities":[1.79e308,1.79e308]`, 1))
	if _, err := votes.Select([]float64{0, 0}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("an overflow of votes gives %v", err)
	}
	if _, err := votes.Scores([]float64{0, 0}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("an overflow of votes gives %v", err)
	}
	empty := open(t, strings.Replace(kmeansJSON, "small", "", 1))
	if label, err := empty.Select([]float64{0, 0}); err != nil || label != "" {
		t.Errorf("an empty label is %q, %v", label, err)
	}
	large := open(t, strings.Replace(mlpJSON, "[1.0,0.0]", "[1e308,0.0]", 1))
	if _, err := large.SelectBatch([][]float64{{1, 1}, {100, 1}}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("an overflow gives %v", err)
	}
}

func TestVectorsOfAnyLengthWithoutClassifiers(t *testing.T) {
	selector := open(t, `{"algorithm":"svm","trained":true,"model_names":["b","a"],"kernel_type":"Rbf","gamma":1,`+
		`"linear_classifiers":[],"rbf_classifiers":[]}`)
	labels, err := selector.SelectBatch([][]float64{{1}, {1, 2, 3}})
	if err != nil || !reflect.DeepEqual(labels, []string{"b", "b"}) {
		t.Errorf("SelectBatch gives %q, %v", labels, err)
	}
	if scores, err := selector.Scores([]float64{1}); err != nil || len(scores) != 0 {
		t.Errorf("Scores gives %v, %v", scores, err)
	}
	if _, err := selector.SelectBatch([][]float64{{1}, {}}); !errors.Is(err, ErrInvalidQuery) {
		t.Errorf("an empty vector gives %v", err)
	}
}

func TestUseAfterClose(t *testing.T) {
	for _, selector := range []*Selector{open(t, knnJSON), {}} {
		selector.Close()
		selector.Close()
		_, selected := selector.Select([]float64{1, 2})
		_, batch := selector.SelectBatch([][]float64{{1, 2}})
		_, none := selector.SelectBatch(nil)
		_, scores := selector.Scores([]float64{1, 2})
		_, json := selector.ToJSON()
		for _, err := range []error{selected, batch, none, scores, json} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("a closed selector gives %v", err)
			}
		}
		if selector.IsTrained() {
			t.Error("a closed selector is trained")
		}
	}
}

func TestNilAndZeroValuesAreClosedSelectors(t *testing.T) {
	failed, _ := KNNFromJSON("{}")
	var knn *KNN
	for _, selector := range []*Selector{failed, knn, nil, {}, new(SVM)} {
		_, selected := selector.Select([]float64{1, 2})
		_, batch := selector.SelectBatch([][]float64{{1, 2}})
		_, scores := selector.Scores([]float64{1, 2})
		_, json := selector.ToJSON()
		for _, err := range []error{selected, batch, scores, json} {
			var typed *Error
			if !errors.Is(err, ErrClosed) || !errors.As(err, &typed) {
				t.Errorf("%v gives %v", selector, err)
			}
		}
		if selector.IsTrained() || selector.Algorithm() != "" || selector.Dimension() != 0 || selector.Labels() != nil {
			t.Errorf("%v describes something", selector)
		}
		selector.Close()
	}
	var none *Error
	for _, err := range []*Error{none, {}} {
		if err.Error() == "" || errors.Is(err, ErrClosed) {
			t.Errorf("an empty error is %q", err.Error())
		}
	}
}

func TestManyGoroutinesWhileOneCloses(t *testing.T) {
	for range 20 {
		selector := open(t, knnJSON)
		var group sync.WaitGroup
		for range 8 {
			group.Add(1)
			go func() {
				defer group.Done()
				for {
					label, err := selector.Select([]float64{1, 0})
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil || label != "é" {
						t.Errorf("Select gives %q, %v", label, err)
						return
					}
					if _, err := selector.SelectBatch([][]float64{{1, 0}}); err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
						return
					}
				}
			}()
		}
		runtime.Gosched()
		selector.Close()
		group.Wait()
	}
}

func FuzzFromJSON(f *testing.F) {
	for _, text := range []string{knnJSON, kmeansJSON, svmJSON, mlpJSON, "[[1", `{"a":1e999}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		selector, err := FromJSON(text)
		if err != nil {
			if !errors.Is(err, ErrInvalidSelector) {
				t.Fatal(err)
			}
			return
		}
		defer selector.Close()
		json, err := selector.ToJSON()
		if err != nil {
			t.Fatal(err)
		}
		again := open(t, json)
		if second, err := again.ToJSON(); err != nil || second != json {
			t.Fatalf("%s becomes %s, %v", json, second, err)
		}
		if vector := make([]float64, min(selector.Dimension(), 1000)); selector.IsTrained() {
			if _, err := selector.Select(vector); errors.Is(err, ErrInternal) {
				t.Fatal(err)
			}
		}
	})
}

// largeKNN returns the JSON of a KNN of 10 000 examples of 1 038 values, the size of real ones.
func largeKNN() string {
	var text strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	text.WriteString(`{"algorithm":"knn","trained":true,"k":5,"embeddings":[`)
	for example := range 10_000 {
		if example > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "[%v", random.NormFloat64())
		for range 1037 {
			fmt.Fprintf(&text, ",%v", random.NormFloat64())
		}
		text.WriteByte(']')
	}
	labels := strings.Repeat(`"a","b","c","d",`, 2500)
	fmt.Fprintf(&text, `],"labels":[%s]}`, strings.TrimSuffix(labels, ","))
	return text.String()
}

func BenchmarkKNN(b *testing.B) {
	text := largeKNN()
	selector := open(b, text)
	random := rand.New(rand.NewPCG(3, 4))
	queries := make([][]float64, 1000)
	for index := range queries {
		queries[index] = make([]float64, 1038)
		for place := range queries[index] {
			queries[index][place] = random.NormFloat64()
		}
	}
	b.Run("Select", func(b *testing.B) {
		for index := range b.N {
			if _, err := selector.Select(queries[index%len(queries)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("SelectBatch1000", func(b *testing.B) {
		for range b.N {
			if _, err := selector.SelectBatch(queries); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("FromJSON", func(b *testing.B) {
		for range b.N {
			read, err := FromJSON(text)
			if err != nil {
				b.Fatal(err)
			}
			read.Close()
		}
	})
}
