package optimize

import "encoding/json"

// Report is the result of a technique or a benchmark: the main fields of docs/report.md, and all of them in JSON.
type Report struct {
	SchemaVersion uint32         `json:"schema_version"` // 1
	Operation     string         `json:"operation"`      // for example "quantize" or "benchmark"
	Input         *File          `json:"input"`          // original model
	Output        *File          `json:"output"`         // result; nil for a technique that returns a model
	Seconds       float64        `json:"seconds"`        // duration of the operation
	PeakRSSBytes  uint64         `json:"peak_rss_bytes"` // peak resident memory of the process until now
	Summary       map[string]any `json:"summary"`        // counts and sums, which depend on the operation
	Nodes         []Node         `json:"nodes"`          // nodes that could have been changed
	Benchmark     *Measurements  `json:"benchmark"`      // nil if nothing was measured
	Quality       *Quality       `json:"quality"`        // nil if nothing was compared

	JSON json.RawMessage `json:"-"` // whole report
}

// File identifies a model with all its files, or a single file.
type File struct {
	Path   string `json:"path"`   // path; "" for a model in memory
	Bytes  uint64 `json:"bytes"`  // size, for a model including external data
	SHA256 string `json:"sha256"` // hexadecimal SHA-256, for a model as docs/report.md describes it
}

// Node is the action of a technique on a node, and its reason.
type Node struct {
	Name   string `json:"name"`   // name of the node, or of its first output if it has none
	Op     string `json:"op"`     // operator type
	Action string `json:"action"` // for example "quantized", "pruned" or "left"; docs/report.md lists all
	Reason string `json:"reason"` // reason for the action, or what a changed node is now
}

// Measurements are the results of a benchmark of the original and the result. Numbers that were not measured are 0.
type Measurements struct {
	Runs      int                      `json:"runs"`       // number of timed rounds
	LatencyMS Both[map[string]float64] `json:"latency_ms"` // milliseconds: "median", "min" and "p90" (90th percentile)
	Speedup   struct {
		Median  float64 `json:"median"`  // median of the time of the original divided by that of the result
		Low     float64 `json:"low"`     // lower end of the 95 % interval
		High    float64 `json:"high"`    // upper end of the 95 % interval
		Verdict string  `json:"verdict"` // "faster", "slower" or "no difference"
	} `json:"speedup"`
	LoadMS        Both[float64] `json:"load_ms"`        // milliseconds to create a session
	ResidentBytes Both[uint64]  `json:"resident_bytes"` // resident memory that loading and the first run add
	Bytes         Both[uint64]  `json:"bytes"`          // size on disk
	SizeRatio     float64       `json:"size_ratio"`     // size of the original divided by the size of the result
}

// Both has a value for the original and one for the result.
type Both[T any] struct {
	Original T `json:"original"`
	Result   T `json:"result"`
}

// Quality compares the outputs of the result with those of the original. The numbers from Cosine to KL are each the
// worst of the judged outputs: the float outputs that docs/report.md selects. ExactMatch is the lowest of all outputs
// that are not float. A number is nil if it applies to no output.
type Quality struct {
	Output        string   `json:"output"`         // name of the judged output with the lowest cosine
	Judged        []string `json:"judged"`         // names of the judged outputs
	Samples       int      `json:"samples"`        // number of texts, given samples or generated inputs
	Cosine        *float64 `json:"cosine"`         // mean cosine of the rows of both models
	MaxAbsError   *float64 `json:"max_abs_error"`  // largest absolute difference
	Top1Agreement *float64 `json:"top1_agreement"` // share of rows whose largest element has the same index
	KL            *float64 `json:"kl"`             // mean Kullback-Leibler divergence in nats, for logits
	ExactMatch    *float64 `json:"exact_match"`    // share of equal elements
}

// SaveReport is the list of files that Save wrote.
type SaveReport struct {
	Files []File `json:"files"` // path, size and SHA-256 of each file
}

// Inspection is the description of a model: the main fields of docs/report.md, and all of them in JSON.
type Inspection struct {
	Bytes      uint64                `json:"bytes"`      // size of all files of the model
	IRVersion  int64                 `json:"ir_version"` // version of the ONNX file format; 0 if the model has none
	Opsets     map[string]int64      `json:"opsets"`     // versions of the operator sets by domain
	Producer   string                `json:"producer"`   // program that wrote the model; "" if the model does not name it
	Nodes      int                   `json:"nodes"`      // number of nodes
	Operators  map[string]int        `json:"operators"`  // number of nodes by operator
	Weights    map[string]WeightInfo `json:"weights"`    // counts by element type
	Parameters uint64                `json:"parameters"` // number of weights, without scales and zero points
	Metadata   map[string]string     `json:"metadata"`   // metadata, with at most 200 characters of each value

	JSON json.RawMessage `json:"-"` // whole description
}

// WeightInfo counts the constant tensors of one element type.
type WeightInfo struct {
	Tensors  int    `json:"tensors"`  // number of tensors
	Elements uint64 `json:"elements"` // number of elements of these tensors
	Bytes    uint64 `json:"bytes"`    // size of these elements
}
