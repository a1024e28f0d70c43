package core_test

import (
	"context"
	"fmt"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
)

// A desk is an adapter as small as can be: it prints what its session hears.
type desk struct{ *core.Session }

func (desk) Wake() {} // a real one takes the events on a flusher

func (d desk) read(b *core.Broker) (tags []core.Tag) {
	for b.Step() {
	}
	events, _ := d.Events().Take(nil)
	for _, e := range events {
		switch e.Kind {
		case core.Confirmed:
			fmt.Println("confirmed", e.Token, e.Err)
		case core.Delivered:
			fmt.Printf("delivered %s, attempt %d\n", e.Message.Body, e.Tag.Attempt)
			tags = append(tags, e.Tag)
		case core.Drained:
			fmt.Println("drained after", e.N)
		case core.Cancelled, core.Again, core.Evicted:
		}
	}
	return tags
}

func exampleBroker() (*core.Broker, desk) {
	b, err := core.New(core.Options{Store: memory.New(memory.Options{}), Manual: true, Shards: 1})
	if err != nil {
		panic(err)
	}
	id, err := b.Enter(context.Background(), core.Login{})
	if err != nil {
		panic(err)
	}
	d := desk{}
	d.Session = b.Open(id, core.SessionSpec{}, 1, d)
	return b, d
}

// A message into a topic that a durable queue is bound to: the Confirmed says
// that the disk has it.
func ExampleSession_Publish() {
	b, d := exampleBroker()
	d.Apply([]core.Change{
		{Queue: &core.QueueSpec{Name: "readings"}},
		{Binding: &core.BindingSpec{Queue: "readings", Source: core.Address{Exchange: core.TopicExchange, Topic: "plant/+/temp"}}},
	}, 2)
	d.read(b) // wait for the answer: only then is the binding in force
	m := &core.Message{QoS: 1, Address: core.Address{Exchange: core.TopicExchange, Topic: "plant/7/temp"}, Body: []byte("21.5")}
	if err := d.Publish(m, 3); err != nil {
		panic(err)
	}
	d.read(b)
	// Output:
	// confirmed 1 <nil>
	// confirmed 2 <nil>
	// confirmed 3 <nil>
}

// A worker takes from a queue as far as its credit goes. What it gives back
// comes again, marked.
func ExampleSession_Consume() {
	b, d := exampleBroker()
	queue := core.Address{Exchange: core.DefaultExchange, Topic: "jobs"}
	d.Consume(core.Sub{ID: 1, Where: queue, Credit: core.Credit{Messages: 1, Auto: true}}, 2)
	if err := d.Publish(&core.Message{QoS: 1, Address: queue, Body: []byte("a job")}, 3); err != nil {
		panic(err)
	}
	tags := d.read(b)
	d.Nack(core.Back{}, tags...)
	tags = d.read(b)
	d.Ack(tags...)
	d.read(b)
	// Output:
	// confirmed 1 <nil>
	// confirmed 3 <nil>
	// confirmed 2 <nil>
	// delivered a job, attempt 1
	// delivered a job, attempt 2
}

// Pull is for readers who ask: up to so many, until then.
func ExampleSession_Pull() {
	b, d := exampleBroker()
	queue := core.Address{Exchange: core.DefaultExchange, Topic: "jobs"}
	d.Consume(core.Sub{ID: 1, Where: queue}, 2)
	d.Pull(1, core.Credit{Messages: 10}, time.Time{}) // what is there now
	d.read(b)
	// Output:
	// confirmed 1 <nil>
	// drained after 0
	// confirmed 2 <nil>
}

// Explain walks the way of a message and publishes nothing.
func ExampleBroker_Explain() {
	b, d := exampleBroker()
	d.Apply([]core.Change{
		{Queue: &core.QueueSpec{Name: "hot"}},
		{Binding: &core.BindingSpec{Queue: "hot", Source: core.Address{Exchange: core.TopicExchange, Topic: "plant/#"}}},
	}, 2)
	d.read(b)
	to := core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"}
	for _, step := range b.Explain(*d.Identity(), &core.Message{QoS: 1, Address: to}).Steps {
		fmt.Println(step.What, step.Name, "-", step.Text)
	}
	// Output:
	// confirmed 1 <nil>
	// confirmed 2 <nil>
	// exchange amq.topic - topic: compares the key with filters
	// binding t/plant/# - queue "hot" takes it
	// queue hot - kept there until acknowledged
}
