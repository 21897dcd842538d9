package selection

import "fmt"

// KNN is a selector of the algorithm "knn".
type KNN struct{ *Selector }

// KMeans is a selector of the algorithm "kmeans".
type KMeans struct{ *Selector }

// SVM is a selector of the algorithm "svm".
type SVM struct{ *Selector }

// MLP is a selector of the algorithm "mlp".
type MLP struct{ *Selector }

// KNNFromJSON reads a KNN, and refuses other algorithms.
func KNNFromJSON(text string) (*KNN, error) {
	selector, err := ofAlgorithm(text, "knn")
	if err != nil {
		return nil, err
	}
	return &KNN{selector}, nil
}

// KMeansFromJSON reads a k-means, and refuses other algorithms.
func KMeansFromJSON(text string) (*KMeans, error) {
	selector, err := ofAlgorithm(text, "kmeans")
	if err != nil {
		return nil, err
	}
	return &KMeans{selector}, nil
}

// SVMFromJSON reads an SVM, and refuses other algorithms.
func SVMFromJSON(text string) (*SVM, error) {
	selector, err := ofAlgorithm(text, "svm")
	if err != nil {
		return nil, err
	}
	return &SVM{selector}, nil
}

// MLPFromJSON reads an MLP, and refuses other algorithms.
func MLPFromJSON(text string) (*MLP, error) {
	selector, err := ofAlgorithm(text, "mlp")
	if err != nil {
		return nil, err
	}
	return &MLP{selector}, nil
}

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
