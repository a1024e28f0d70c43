package core

import (
	"errors"
	"fmt"
)

// A Code is the number of an error, one list for all protocols. A code is
// never reused; new ones keep the hundred's meaning.
type Code uint16

// The codes, in order.
const (
	CodeSyntax          Code = 400 // not the grammar
	CodeUnauthenticated Code = 401 // no or a wrong login
	CodeDenied          Code = 403 // rights
	CodeNotFound        Code = 404 // queue, stream, subscription, delivery, transaction; a Must without a target
	CodeUnknownVerb     Code = 405
	CodeBadValue        Code = 406 // unknown option, bad value, not supported
	CodeTooSlow         Code = 408
	CodeConflict        Code = 409 // in use, other settings, wrong moment
	CodeGone            Code = 410 // reply address is dead
	CodePrecondition    Code = 412
	CodeTooLarge        Code = 413
	CodeRejected        Code = 422 // a plugin refused
	CodeTakenOver       Code = 423 // same name elsewhere
	CodeQuota           Code = 429 // rate, queue full, subscriptions, connections
	CodeTooMany         Code = 431 // options, headers
	CodeInternal        Code = 500
	CodeUnavailable     Code = 503 // overload, starting, shutdown, a plugin that is down
	CodeStorageFull     Code = 507 // publishes refused, acks go on
)

// Name is the code's name as protocols and logs print it.
func (c Code) Name() string {
	switch c {
	case CodeSyntax:
		return "syntax"
	case CodeUnauthenticated:
		return "unauthenticated"
	case CodeDenied:
		return "denied"
	case CodeNotFound:
		return "not_found"
	case CodeUnknownVerb:
		return "unknown_verb"
	case CodeBadValue:
		return "bad_value"
	case CodeTooSlow:
		return "too_slow"
	case CodeConflict:
		return "conflict"
	case CodeGone:
		return "gone"
	case CodePrecondition:
		return "precondition"
	case CodeTooLarge:
		return "too_large"
	case CodeRejected:
		return "rejected"
	case CodeTakenOver:
		return "taken_over"
	case CodeQuota:
		return "quota"
	case CodeTooMany:
		return "too_many"
	case CodeInternal:
		return "internal"
	case CodeUnavailable:
		return "unavailable"
	case CodeStorageFull:
		return "storage_full"
	}
	return "unknown"
}

// Retry says whether the same request may succeed later.
func (c Code) Retry() bool {
	switch c { //nolint:exhaustive // the others are all "no"
	case CodeQuota, CodeInternal, CodeUnavailable, CodeStorageFull:
		return true
	}
	return false
}

// A Reason is why a message ended, or was refused: the one list of ends.
type Reason uint8

// The reasons.
const (
	ReasonNone        Reason = iota
	ReasonAcked              // a consumer settled it
	ReasonDelivered          // written to a live reader
	ReasonNoTarget           // nobody wants it
	ReasonExpired            // past its time
	ReasonOverflow           // the queue was full: oldest dropped
	ReasonQueueFull          // the queue was full: refused
	ReasonSlowReader         // a live reader's outbox was full
	ReasonRejected           // a consumer or a plugin refused it
	ReasonDenied             // rights
	ReasonPurged             // an operator or owner emptied the queue
	ReasonRemoved            // its queue was removed
	ReasonSessionOver        // its session ended
	ReasonReplaced           // a newer retained value took its place
	ReasonStorageFull        // the disk is full
	ReasonTooLarge           // larger than the reader or the store takes
	ReasonUnsupported        // asked for what does not exist yet
	ReasonShutdown           // the broker stopped while it was transient
	ReasonUnavailable        // the store or a stage cannot take it now
	ReasonAttempts           // delivered as often as its queue allows
	ReasonMoved              // moved to another queue
	ReasonIdle               // its queue was not used for too long
	ReasonDuplicate          // it was there before: kept once
	numReasons
)

var reasonNames = [numReasons]string{
	"none", "acked", "delivered", "no_target", "expired", "overflow", "queue_full", "slow_reader",
	"rejected", "denied", "purged", "removed", "session_over", "replaced", "storage_full", "too_large",
	"unsupported", "shutdown", "unavailable", "max_attempts", "moved", "idle", "duplicate",
}

// String is the reason's name in metrics, explain and $SYS.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Drop says whether the end is a loss somebody may ask about, and not the
// message's purpose.
func (r Reason) Drop() bool {
	switch r { //nolint:exhaustive // all others are drops
	case ReasonNone, ReasonAcked, ReasonDelivered, ReasonReplaced, ReasonMoved, ReasonDuplicate:
		return false
	}
	return true
}

// An Error is what the broker tells a client: a number, a sentence for people
// (one line, never part of a payload or a secret), the reason that goes into
// the fate journal, and in By who decided, which never goes to the wire.
// errors.Is compares codes.
type Error struct {
	Code   Code
	Reason Reason
	Text   string
	By     string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Code.Name()
	}
	return e.Text
}

// Is says whether target is an *Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errorf makes an *Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// NotYet is the answer to what Godwit will do and does not yet.
func NotYet(what string) *Error {
	return &Error{Code: CodeBadValue, Reason: ReasonUnsupported, Text: what + ": not supported yet"}
}

// Sentinels for errors.Is, one a code that callers decide on.
var (
	ErrSyntax          = &Error{Code: CodeSyntax}
	ErrUnauthenticated = &Error{Code: CodeUnauthenticated}
	ErrDenied          = &Error{Code: CodeDenied, Reason: ReasonDenied}
	ErrNotFound        = &Error{Code: CodeNotFound, Reason: ReasonNoTarget}
	ErrBadValue        = &Error{Code: CodeBadValue}
	ErrConflict        = &Error{Code: CodeConflict}
	ErrGone            = &Error{Code: CodeGone}
	ErrPrecondition    = &Error{Code: CodePrecondition}
	ErrTooLarge        = &Error{Code: CodeTooLarge, Reason: ReasonTooLarge, Text: "too large for the store"}
	ErrRejected        = &Error{Code: CodeRejected, Reason: ReasonRejected}
	ErrTakenOver       = &Error{Code: CodeTakenOver, Text: "taken over by another connection"}
	ErrQuota           = &Error{Code: CodeQuota, Reason: ReasonQueueFull}
	ErrInternal        = &Error{Code: CodeInternal}
	ErrOverload        = &Error{Code: CodeUnavailable, Reason: ReasonUnavailable, Text: "the store is overloaded"}
	ErrReadOnly        = &Error{Code: CodeStorageFull, Reason: ReasonStorageFull, Text: "the disk is full: publishes are refused, consumers and acks go on"}
)

// Errors that are never told to a client.
var (
	// ErrWait: nothing was taken; one Again event will follow.
	ErrWait = errors.New("wait for Again")
	// ErrClosed: the session, the store or the broker is closed.
	ErrClosed = errors.New("closed")
	// ErrFenced: another owner has the partition.
	ErrFenced = errors.New("fenced: another owner has this partition")
	// ErrPoisoned: the disk failed; nothing is confirmed any more.
	ErrPoisoned = errors.New("poisoned: the disk failed, nothing more can be confirmed")
)

// A CorruptError says that the store found damage it must not skip.
type CorruptError struct {
	Log      LogID
	From, To Offset
	Text     string // what is wrong, and the command that repairs it
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt: log %d, offsets %d to %d: %s", e.Log, e.From, e.To, e.Text)
}

// AsError makes an *Error of any error: itself, or 500 with a neutral text.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Reason: ReasonUnavailable, Text: "internal error", By: err.Error()}
}
