package hostclient_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/transform"
)

// tinyONNX returns a network of two inputs: y = (relu(a + b), relu(a - b)).
func tinyONNX() []byte {
	b, err := os.ReadFile("testdata/tiny.onnx")
	if err != nil {
		log.Fatal(err)
	}
	return b
}

func ExampleSeal() {
	models, secret, err := hostclient.Seal(context.Background(), tinyONNX(), hostclient.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}
	d := secret.Describe()
	fmt.Println(d.Scheme, "for", len(models), "cloud")
	for _, l := range d.Layers {
		fmt.Printf("%s %s, in the cloud: %q\n", l.Name, l.Shape, l.Cloud)
	}
	fmt.Println(secret)
	// Output:
	// permute+pad for 1 cloud
	// dense 2, in the cloud: "dense 2->2"
	// relu 2, in the cloud: ""
	// hostclient.Secret(redacted)
}

// Layers that cost the host more to send than to compute stay there, with the same
// results. What is kept depends on the machine, so this example is not run.
func ExampleSealOptions_place() {
	models, secret, err := hostclient.Seal(context.Background(), tinyONNX(), hostclient.SealOptions{
		Place:      hostclient.PlaceAuto,
		Multiplier: cpu.New(cpu.Options{}), // the one that sessions will have
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range secret.Describe().Layers {
		if c := l.Cost; c != nil {
			fmt.Printf("%s %s: kept %t, %d ns a sample to send, %d to keep\n", l.Name, l.Shape, l.Kept, c.Send(), c.Keep)
		}
	}
	// A session needs a client for each of these, and none where all is kept.
	fmt.Println(len(models), "sealed models for", secret.Roles(), "clouds")
}

// pushed seals the tiny network, and starts a cloud that holds it.
func pushed(ctx context.Context) (*cloud, *hostclient.Client, []hostclient.SealedModel, *hostclient.Secret) {
	models, secret, err := hostclient.Seal(ctx, tinyONNX(), hostclient.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}
	c, err := startCloud()
	if err != nil {
		log.Fatal(err)
	}
	client, err := hostclient.Dial(c.addr)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Push(ctx, models[0], nil); err != nil {
		log.Fatal(err)
	}
	return c, client, models, secret
}

func ExampleOpen() {
	ctx := context.Background()
	cloud, client, models, secret := pushed(ctx)
	defer cloud.close()
	defer client.Close()

	session, err := hostclient.Open(ctx, secret, models, []*hostclient.Client{client}, hostclient.Options{
		Multiplier: cpu.New(cpu.Options{}),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	fmt.Println(session.Stats().Samples)
	// Output: 0
}

// Two clouds each see a share of the input that alone says nothing.
func ExampleSecret_Bind() {
	ctx := context.Background()
	scheme, err := transform.ParseScheme("permute+split")
	if err != nil {
		log.Fatal(err)
	}
	models, secret, err := hostclient.Seal(ctx, tinyONNX(), hostclient.SealOptions{Scheme: scheme})
	if err != nil {
		log.Fatal(err)
	}
	var clients []*hostclient.Client
	for role, provider := range []string{"Alice's machines", "Bob's machines"} {
		cloud, err := startCloud()
		if err != nil {
			log.Fatal(err)
		}
		defer cloud.close()
		client, err := hostclient.DialProvider(cloud.addr, provider)
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		if err := secret.Bind(role, client.Provider()); err != nil { // then write the secret to its file
			log.Fatal(err)
		}
		if err := client.Push(ctx, models[role], nil); err != nil {
			log.Fatal(err)
		}
		clients = append(clients, client)
	}
	fmt.Println(secret.Bind(1, "Alice's machines"))

	session, err := hostclient.Open(ctx, secret, models, clients, hostclient.Options{Multiplier: cpu.New(cpu.Options{})})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	y, err := session.Infer(ctx, []float32{3, 4}, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f\n", y)
	// Output:
	// hostclient: wrong provider: Alice's machines has role 0 for good, and cannot have role 1
	// [7.00 0.00]
}

func ExampleSession_Infer() {
	ctx := context.Background()
	cloud, client, models, secret := pushed(ctx)
	defer cloud.close()
	defer client.Close()
	session, err := hostclient.Open(ctx, secret, models, []*hostclient.Client{client}, hostclient.Options{
		Multiplier: cpu.New(cpu.Options{}),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	y, err := session.Infer(ctx, []float32{
		3, 4,
		5, -1,
		-1, -1,
	}, 3)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f\n", y)
	// Output: [7.00 0.00 4.00 6.00 0.00 0.00]
}

func ExampleSession_Precompute() {
	ctx := context.Background()
	cloud, client, models, secret := pushed(ctx)
	defer cloud.close()
	defer client.Close()
	session, err := hostclient.Open(ctx, secret, models, []*hostclient.Client{client}, hostclient.Options{
		Multiplier:   cpu.New(cpu.Options{}),
		RequireStock: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	if err := session.Precompute(ctx, 2); err != nil {
		log.Fatal(err)
	}
	fmt.Println("in stock:", session.Stats().Stock)
	for range 3 {
		_, err := session.Infer(ctx, []float32{3, 4}, 1)
		fmt.Println(err)
	}
	// Output:
	// in stock: 2
	// <nil>
	// <nil>
	// hostclient: too few pads in stock: for 0 samples, and the batch has 1
}
