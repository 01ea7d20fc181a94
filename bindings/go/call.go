package optimize

// #include <stdlib.h>
// #include <optimize.h>
// typedef const char stage_text;
// int32_t optimize_go_progress(void *user_data, stage_text *stage, uint64_t done, uint64_t total);
import "C"

import (
	"context"
	"math"
	"runtime/cgo"
	"time"
	"unsafe"
)

// ProgressFunc receives the progress of a call, on the goroutine that made the call. It is called at most 20 times per
// second, and in addition for the first report of each stage and when done reaches total.
//
// stage is the name of the stage, such as "quantize". done and total count the work of the stage in its unit:
// optimize_progress_fn in optimize.h lists the stages and their units. total is 0 if it is unknown.
type ProgressFunc func(stage string, done, total uint64)

type progressKey struct{}

// WithProgress returns a context under which calls report their progress to f; a nil f disables this. To stop a call
// from within f, cancel the context. A panic of f ends the call, and continues on the goroutine of the caller when the
// call has ended.
func WithProgress(ctx context.Context, f ProgressFunc) context.Context {
	return context.WithValue(ctx, progressKey{}, f)
}

// tryUnder makes a C call like try, under ctx: the call ends when ctx is done, and reports its progress to the function
// that WithProgress has put into ctx, if there is one.
func tryUnder(ctx context.Context, call func(*C.optimize_call_t, errorOut) status) error {
	if err := ctx.Err(); err != nil {
		return contextError(err)
	}
	c := C.optimize_call_t{struct_size: C.sizeof_optimize_call_t}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left <= 0 {
			return contextError(context.DeadlineExceeded)
		}
		// The timeout in milliseconds is rounded up, because 0 means no timeout.
		c.timeout_ms = C.uint32_t(math.Min(math.Ceil(left.Seconds()*1e3), math.MaxUint32))
	}
	if ctx.Done() != nil {
		token, err := newCancel()
		if err != nil {
			return err
		}
		defer token.fireOn(ctx)()
		c.cancel = token.c
	}
	if f, ok := ctx.Value(progressKey{}).(ProgressFunc); ok && f != nil {
		p := &progress{ctx: ctx, report: f}
		defer p.install(&c)()
	}
	return try(func(e errorOut) status { return call(&c, e) })
}

func contextError(err error) error {
	status := ErrCancelled
	if err == context.DeadlineExceeded {
		status = ErrTimeout
	}
	return &Error{Status: status, Message: err.Error()}
}

// cancel is a C token that cancels the calls to which it is passed.
type cancel struct{ c *C.optimize_cancel_t }

func newCancel() (token cancel, err error) {
	err = try(func(e errorOut) status { return C.optimize_cancel_new(&token.c, e) })
	return token, err
}

// fireOn fires the token when ctx is cancelled. It does nothing at the deadline of ctx, which tryUnder passes to the
// library as the timeout. The returned function ends the watching of ctx and frees the token.
func (t cancel) fireOn(ctx context.Context) (stop func()) {
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-ctx.Done():
			if ctx.Err() != context.DeadlineExceeded {
				C.optimize_cancel_fire(t.c, nil)
			}
		case <-over:
		}
	}()
	return func() {
		close(over)
		<-gone // the goroutine cannot fire the token any more
		C.optimize_cancel_free(t.c)
	}
}

// progress is the user data of the C callback.
type progress struct {
	caught
	ctx    context.Context
	report ProgressFunc
}

// install makes the call c report its progress to p until the returned function is called, which also continues a panic
// of the progress function.
func (p *progress) install(c *C.optimize_call_t) (remove func()) {
	data, forget := userData(p)
	c.user_data = data
	c.progress = C.optimize_progress_fn(C.optimize_go_progress)
	return func() {
		forget()
		p.goOn()
	}
}

//export optimize_go_progress
func optimize_go_progress(userData unsafe.Pointer, stage *C.stage_text, done, total C.uint64_t) (stop C.int32_t) {
	p := valueOf(userData).(*progress)
	defer p.catch(&stop)
	if p.panicked != nil {
		return 1
	}
	p.report(C.GoString((*C.char)(stage)), uint64(done), uint64(total))
	if p.ctx.Err() == context.Canceled {
		return 1 // stops the call at once: the goroutine of fireOn may run only later
	}
	return 0
}

// userData returns a pointer for the user data of a C callback, from which valueOf returns value until forget is
// called.
func userData(value any) (data unsafe.Pointer, forget func()) {
	h := cgo.NewHandle(value)
	// C memory, because a struct that C reads must not point into Go memory.
	data = C.malloc(C.size_t(unsafe.Sizeof(h)))
	*(*cgo.Handle)(data) = h
	return data, func() {
		C.free(data)
		h.Delete()
	}
}

func valueOf(userData unsafe.Pointer) any { return (*(*cgo.Handle)(userData)).Value() }

// caught keeps the panic of a callback, which must not unwind through the library, until the call has ended.
type caught struct{ panicked any }

// catch is deferred in a callback: it keeps a panic, and makes the callback return 1 in this case.
func (c *caught) catch(stop *C.int32_t) {
	if panicked := recover(); panicked != nil {
		c.panicked, *stop = panicked, 1
	}
}

// goOn continues the panic that catch kept, if there was one. It is called when the C call has ended.
func (c *caught) goOn() {
	if c.panicked != nil {
		panic(c.panicked)
	}
}
