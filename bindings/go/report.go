package optimize

import "encoding/json"

// Report is the result of a technique or a benchmark: the main fields of docs/report.md, and all of them in JSON.
type Report struct {
	SchemaVersion uint32         `json:"schema_version"`
	Operation     string         `json:"operation"`
	Input         *File          `json:"input"`
	Output        *File          `json:"output"`
	Seconds       float64        `json:"seconds"`
	PeakRSSBytes  uint64         `json:"peak_rss_bytes"`
	Summary       map[string]any `json:"summary"`
	Nodes         []Node         `json:"nodes"`
	Benchmark     *Measurements  `json:"benchmark"` // nil if nothing was measured
	Quality       *Quality       `json:"quality"`   // nil if nothing was compared

	JSON json.RawMessage `json:"-"`
}

// File identifies a model, including external data, or one of its files.
type File struct {
	Path   string `json:"path"`
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Node is the action of a technique on a node, and its reason.
type Node struct {
	Name   string `json:"name"`
	Op     string `json:"op"`
	Action string `json:"action"` // for example "quantized", "pruned" or "left"; docs/report.md lists all
	Reason string `json:"reason"`
}

// Measurements compare the original and the result. Numbers that were not measured are 0.
type Measurements struct {
	Runs      int                      `json:"runs"`
	LatencyMS Both[map[string]float64] `json:"latency_ms"` // "median", "min", "p90"
	Speedup   struct {
		Median  float64 `json:"median"`
		Low     float64 `json:"low"` // low and high are the ends of the 95 % interval
		High    float64 `json:"high"`
		Verdict string  `json:"verdict"` // "faster", "slower" or "no difference"
	} `json:"speedup"`
	LoadMS        Both[float64] `json:"load_ms"`
	ResidentBytes Both[uint64]  `json:"resident_bytes"`
	Bytes         Both[uint64]  `json:"bytes"`
	SizeRatio     float64       `json:"size_ratio"` // size of the original divided by the size of the result
}

// Both has a number for the original and one for the result.
type Both[T any] struct {
	Original T `json:"original"`
	Result   T `json:"result"`
}

// Quality compares the outputs of the result with those of the original. Each number is the worst of the judged
// outputs, or nil if it applies to none of them. Top1Agreement is the share of rows whose largest element has the same
// index, KL the mean divergence in nats, for logits, and ExactMatch the share of equal elements of outputs that are not
// float.
type Quality struct {
	Output        string   `json:"output"` // the judged output with the lowest cosine
	Judged        []string `json:"judged"` // names of the judged outputs; see docs/report.md
	Samples       int      `json:"samples"`
	Cosine        *float64 `json:"cosine"`
	MaxAbsError   *float64 `json:"max_abs_error"`
	Top1Agreement *float64 `json:"top1_agreement"`
	KL            *float64 `json:"kl"`
	ExactMatch    *float64 `json:"exact_match"`
}

// SaveReport is the list of files that Save wrote.
type SaveReport struct {
	Files []File `json:"files"`
}

// Inspection is the description of a model: the main fields of docs/report.md, and all of them in JSON.
type Inspection struct {
	Bytes      uint64                `json:"bytes"` // size of all files of the model
	IRVersion  int64                 `json:"ir_version"`
	Opsets     map[string]int64      `json:"opsets"`
	Producer   string                `json:"producer"`
	Nodes      int                   `json:"nodes"`
	Operators  map[string]int        `json:"operators"`
	Weights    map[string]WeightInfo `json:"weights"` // counts by element type
	Parameters uint64                `json:"parameters"`
	Metadata   map[string]string     `json:"metadata"`

	JSON json.RawMessage `json:"-"`
}

// WeightInfo counts the constant tensors of one element type.
type WeightInfo struct {
	Tensors  int    `json:"tensors"`
	Elements uint64 `json:"elements"`
	Bytes    uint64 `json:"bytes"`
}
