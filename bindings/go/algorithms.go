package selection

import "fmt"

// The selectors of each algorithm are the same type: they have the same methods.
type (
	// KNN is a selector of the algorithm "knn".
	KNN = Selector
	// KMeans is a selector of the algorithm "kmeans".
	KMeans = Selector
	// SVM is a selector of the algorithm "svm".
	SVM = Selector
	// MLP is a selector of the algorithm "mlp".
	MLP = Selector
)

// KNNFromJSON reads a KNN, and refuses other algorithms.
func KNNFromJSON(text string) (*KNN, error) { return ofAlgorithm(text, "knn") }

// KMeansFromJSON reads a k-means, and refuses other algorithms.
func KMeansFromJSON(text string) (*KMeans, error) { return ofAlgorithm(text, "kmeans") }

// SVMFromJSON reads an SVM, and refuses other algorithms.
func SVMFromJSON(text string) (*SVM, error) { return ofAlgorithm(text, "svm") }

// MLPFromJSON reads an MLP, and refuses other algorithms.
func MLPFromJSON(text string) (*MLP, error) { return ofAlgorithm(text, "mlp") }

func ofAlgorithm(text, algorithm string) (*Selector, error) {
	selector, err := FromJSON(text)
	if err != nil {
		return nil, err
	}
	if found := selector.Algorithm(); found != algorithm {
		selector.Close()
		return nil, &Error{ErrInvalidSelector, fmt.Sprintf("algorithm must be %s, found %s", algorithm, found)}
	}
	return selector, nil
}
