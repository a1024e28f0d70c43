package core

// Next is what comes after a stage.
type Next func(p *Publication)

// A Stage stands in the way of publications, as http middleware does in the
// way of requests.
type Stage func(next Next) Next
