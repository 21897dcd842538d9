// Command choose chooses for vectors that come as JSON lines: go run ./cmd/choose knn_model.json < vectors.jsonl
//
// Each line is a list of numbers. The answer is one line, {"label": …, "scores": [[label, value], …]} or {"error": …}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	selection "akidb-mlx/bindings/go"
)

// The longest line that is read.
const maxLine = 64 << 20

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: choose FILE < vectors.jsonl")
		os.Exit(2)
	}
	if err := choose(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "choose:", err)
		os.Exit(1)
	}
}

func choose(path string, in io.Reader, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	selector, err := selection.FromJSON(string(text))
	if err != nil {
		return err
	}
	defer selector.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	buffer := bufio.NewWriter(out)
	answers := json.NewEncoder(buffer)
	answers.SetEscapeHTML(false)
	for lines.Scan() {
		found, err := answer(selector, lines.Bytes())
		if err != nil {
			found = map[string]any{"error": err.Error()}
		}
		if err := answers.Encode(found); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return buffer.Flush()
}

func answer(selector *selection.Selector, line []byte) (map[string]any, error) {
	var vector []float64
	if err := json.Unmarshal(line, &vector); err != nil {
		return nil, fmt.Errorf("not a list of numbers: %w", err)
	}
	label, err := selector.Select(vector)
	if err != nil {
		return nil, err
	}
	scores, err := selector.Scores(vector)
	if err != nil {
		return nil, err
	}
	pairs := make([][2]any, len(scores))
	for index, score := range scores {
		pairs[index] = [2]any{score.Label, score.Value}
	}
	return map[string]any{"label": label, "scores": pairs}, nil
}
