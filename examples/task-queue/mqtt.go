package main

import (
	"context"
	"errors"
	"net"

	"github.com/eclipse/paho.golang/paho"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// dieWithATask is a worker that speaks MQTT 5, with a stock client: it takes one
// task from $queue/tasks, and its machine loses power before the PUBACK.
func (d *day) dieWithATask(ctx context.Context, boss *client.Client) (task string, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.MQTT)
	if err != nil {
		return "", err
	}
	taken := make(chan string, 1)
	one := uint16(1)
	worker := paho.NewClient(paho.ClientConfig{
		ClientID: "mqtt-worker", Conn: conn, EnableManualAcknowledgment: true,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			taken <- string(p.Packet.Payload)
			return true, nil
		}},
	})
	connect := &paho.Connect{ClientID: "mqtt-worker", CleanStart: true, KeepAlive: 30, Properties: &paho.ConnectProperties{ReceiveMaximum: &one}}
	if _, err := worker.Connect(ctx, connect); err != nil {
		return "", errors.Join(err, conn.Close())
	}
	if _, err := worker.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "$queue/tasks", QoS: 1}}}); err != nil {
		return "", err
	}
	if err := boss.Publish(ctx, client.Message{Dest: "q/tasks", Body: []byte("task-of-the-dead")}); err != nil {
		return "", err
	}
	select {
	case task = <-taken:
		return task, conn.Close() // no DISCONNECT, no PUBACK
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
