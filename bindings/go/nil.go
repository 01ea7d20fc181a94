package optimize

// #include <optimize.h>
import "C"

// The methods of this file hide those of the embedded *handle, which a nil object does not have: a call with such an
// object fails with ErrClosed instead of a panic, and Close does nothing.

func (c *Context) acquire() (*C.optimize_context_t, error) {
	if c == nil {
		return nil, ErrClosed
	}
	return c.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (c *Context) Close() error {
	if c == nil {
		return nil
	}
	return c.handle.Close()
}

func (m *Model) acquire() (*C.optimize_model_t, error) {
	if m == nil {
		return nil, ErrClosed
	}
	return m.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (m *Model) Close() error {
	if m == nil {
		return nil
	}
	return m.handle.Close()
}

func (t *Tokenizer) acquire() (*C.optimize_tokenizer_t, error) {
	if t == nil {
		return nil, ErrClosed
	}
	return t.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (t *Tokenizer) Close() error {
	if t == nil {
		return nil
	}
	return t.handle.Close()
}

func (t *Tensor) acquire() (*C.optimize_tensor_t, error) {
	if t == nil {
		return nil, ErrClosed
	}
	return t.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (t *Tensor) Close() error {
	if t == nil {
		return nil
	}
	return t.handle.Close()
}

func (s *Session) acquire() (*C.optimize_session_t, error) {
	if s == nil {
		return nil, ErrClosed
	}
	return s.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (s *Session) Close() error {
	if s == nil {
		return nil
	}
	return s.handle.Close()
}

func (g *Generator) acquire() (*C.optimize_generator_t, error) {
	if g == nil {
		return nil, ErrClosed
	}
	return g.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (g *Generator) Close() error {
	if g == nil {
		return nil
	}
	return g.handle.Close()
}

func (e *Ensemble) acquire() (*C.optimize_ensemble_t, error) {
	if e == nil {
		return nil, ErrClosed
	}
	return e.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (e *Ensemble) Close() error {
	if e == nil {
		return nil
	}
	return e.handle.Close()
}

func (p *Package) acquire() (*C.optimize_package_t, error) {
	if p == nil {
		return nil, ErrClosed
	}
	return p.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (p *Package) Close() error {
	if p == nil {
		return nil
	}
	return p.handle.Close()
}

func (e *Embedder) acquire() (*C.optimize_embedder_t, error) {
	if e == nil {
		return nil, ErrClosed
	}
	return e.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (e *Embedder) Close() error {
	if e == nil {
		return nil
	}
	return e.handle.Close()
}

func (c *Classifier) acquire() (*C.optimize_classifier_t, error) {
	if c == nil {
		return nil, ErrClosed
	}
	return c.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (c *Classifier) Close() error {
	if c == nil {
		return nil
	}
	return c.handle.Close()
}

func (t *Tagger) acquire() (*C.optimize_tagger_t, error) {
	if t == nil {
		return nil, ErrClosed
	}
	return t.handle.acquire()
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (t *Tagger) Close() error {
	if t == nil {
		return nil
	}
	return t.handle.Close()
}
