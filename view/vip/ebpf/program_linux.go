package ebpf

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Offsets in struct bpf_sock_addr and struct bpf_sock of the kernel.
const (
	ctxIP4      = 4
	ctxIP6      = 8
	ctxPort     = 24
	ctxProtocol = 36

	sockFamily   = 4
	sockProtocol = 12
	sockSrcIP4   = 24
	sockSrcIP6   = 28
	sockSrcPort  = 44 // in the machine's order, unlike the others

	sockDstPort = 48
	sockDstIP4  = 52
	sockDstIP6  = 56
)

// The stack of the programs, from the frame pointer down.
const (
	stSvc     = -24  // svcKey, 20 bytes
	stFlowKey = -64  // flowKey, 32
	stFlow    = -96  // flowValue, 32
	stSlot    = -104 // slotKey, 8
	stCliKey  = -120 // clientKey, 16
	stClient  = -136 // clientValue, 16
	stPick    = -152 // pickKey, 16
	stHit     = -160 // uint64
)

// mappedWord is the third word of an address like ::ffff:10.0.0.1, as it lies
// in memory.
func mappedWord() int32 {
	return int32(binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}))
}

// family is what differs between the programs of IPv4 and IPv6 sockets.
type family struct{ v6 bool }

// code collects instructions.
type code struct {
	asm.Instructions
	pending string
}

func (c *code) add(ins ...asm.Instruction) {
	for _, i := range ins {
		if c.pending != "" {
			i, c.pending = i.WithSymbol(c.pending), ""
		}
		c.Instructions = append(c.Instructions, i)
	}
}

func (c *code) label(name string) { c.pending = name }

// lookup leaves a pointer to the value in R0, or 0.
func (c *code) lookup(m *ebpf.Map, key int32) {
	c.add(
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
	)
}

func (c *code) update(m *ebpf.Map, key, value int32) {
	c.add(
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, key),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, value),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	)
}

// call calls a helper with the context, which is in R6, and stores the answer.
func (c *code) call(f asm.BuiltinFunc, to int16) {
	c.add(asm.Mov.Reg(asm.R1, asm.R6), f.Call(), asm.StoreMem(asm.RFP, to, asm.R0, asm.DWord))
}

// copy copies n bytes, a multiple of eight, from a register to the stack.
func (c *code) copy(to int16, from asm.Register, offset int16, n int16) {
	for i := int16(0); i < n; i += 8 {
		c.add(asm.LoadMem(asm.R2, from, offset+i, asm.DWord), asm.StoreMem(asm.RFP, to+i, asm.R2, asm.DWord))
	}
}

func (c *code) zero(from, to int16) {
	c.add(asm.Mov.Imm(asm.R2, 0))
	for i := from; i < to; i += 8 {
		c.add(asm.StoreMem(asm.RFP, i, asm.R2, asm.DWord))
	}
}

// readAddr puts 16 bytes of address from the context to the stack.
func (c *code) readAddr(f family, ip4, ip6 int16, to int16) {
	if f.v6 {
		for i := int16(0); i < 16; i += 4 {
			c.add(asm.LoadMem(asm.R2, asm.R6, ip6+i, asm.Word), asm.StoreMem(asm.RFP, to+i, asm.R2, asm.Word))
		}
		return
	}
	c.add(
		asm.Mov.Imm(asm.R2, 0), asm.StoreMem(asm.RFP, to, asm.R2, asm.DWord),
		asm.Mov.Imm32(asm.R2, mappedWord()), asm.StoreMem(asm.RFP, to+8, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, ip4, asm.Word), asm.StoreMem(asm.RFP, to+12, asm.R2, asm.Word),
	)
}

// writeAddr puts the address and port at r into the context.
func (c *code) writeAddr(f family, r asm.Register) {
	if f.v6 {
		for i := int16(0); i < 16; i += 4 {
			c.add(asm.LoadMem(asm.R2, r, i, asm.Word), asm.StoreMem(asm.R6, ctxIP6+i, asm.R2, asm.Word))
		}
	} else {
		c.add(asm.LoadMem(asm.R2, r, 12, asm.Word), asm.StoreMem(asm.R6, ctxIP4, asm.R2, asm.Word))
	}
	c.add(asm.LoadMem(asm.R2, r, 16, asm.Half), asm.StoreMem(asm.R6, ctxPort, asm.R2, asm.Word))
}

// pass ends the program: the kernel goes on with what the context says.
func (c *code) pass() {
	c.label("pass")
	c.add(asm.Mov.Imm(asm.R0, 1), asm.Return())
}

// only lets the namespaces of a test through.
func (c *code) only(cookies []uint64) {
	if len(cookies) == 0 {
		return
	}
	c.add(asm.Mov.Reg(asm.R1, asm.R6), asm.FnGetNetnsCookie.Call())
	for _, n := range cookies {
		c.add(asm.LoadImm(asm.R2, int64(n), asm.DWord), asm.JEq.Reg(asm.R0, asm.R2, "ours"))
	}
	c.add(asm.Ja.Label("pass"))
	c.label("ours")
}

// options are what the programs are made with.
type options struct {
	netns     uint64 // the node's own namespace
	only      []uint64
	setRetval bool // the kernel has bpf_set_retval (5.18)
	guard     bool // of node ports
}

// forward is the program of connect and sendmsg.
//
// R6 context, R7 svcValue, R8 count or clientValue, R9 slotValue.
func forward(m *store, f family, sendmsg bool, o options) asm.Instructions {
	var c code
	c.add(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, ctxProtocol, asm.Word),
		asm.JEq.Imm(asm.R7, int32(protoUDP), "known"),
		asm.JNE.Imm(asm.R7, int32(protoTCP), "pass"),
	)
	c.label("known")
	c.only(o.only)
	c.readAddr(f, ctxIP4, ctxIP6, stSvc)
	c.zero(stFlow, stFlow+32)
	c.add(
		asm.LoadMem(asm.R2, asm.R6, ctxPort, asm.Word),
		asm.StoreMem(asm.RFP, stSvc+16, asm.R2, asm.Half),
		asm.StoreMem(asm.RFP, stSvc+18, asm.R7, asm.Byte),
		asm.StoreImm(asm.RFP, stSvc+19, int64(scopeAddr), asm.Byte),
		asm.StoreMem(asm.RFP, stFlow+16, asm.R2, asm.Half),
		asm.StoreMem(asm.RFP, stFlow+18, asm.R7, asm.Byte),
	)
	c.copy(stFlow, asm.RFP, stSvc, 16)
	c.lookup(m.svc, stSvc)
	c.add(asm.JNE.Imm(asm.R0, 0, "found"))

	// Is it an address of the node, or one that only services have?
	c.lookup(m.addr, stSvc)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R8, asm.R0, 16, asm.DWord),
		asm.JEq.Imm(asm.R8, int32(kindCluster), "refuse"),
	)
	c.copy(stSvc, asm.R0, 0, 16)
	c.add(asm.StoreImm(asm.RFP, stSvc+19, int64(scopeNode), asm.Byte), asm.JNE.Imm(asm.R8, int32(kindLoopback), "node"))
	c.add(
		asm.Mov.Reg(asm.R1, asm.R6), asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R2, int64(o.netns), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R2, "pass"),
	)
	c.label("node")
	c.lookup(m.svc, stSvc)
	c.add(asm.JEq.Imm(asm.R0, 0, "pass"))

	c.label("found")
	c.add(
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R8, asm.R7, 4, asm.Word),
		asm.JEq.Imm(asm.R8, 0, "refuse"),
		asm.RSh.Imm(asm.R8, 31),
		asm.JEq.Imm(asm.R8, 0, "anywhere"),
		asm.Mov.Reg(asm.R1, asm.R6), asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R2, int64(o.netns), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R2, "pass"),
	)
	c.label("anywhere")
	c.zero(stPick, stCliKey+16)
	c.sticky(m, sendmsg)
	c.choose(m, sendmsg)

	c.label("chosen")
	if !sendmsg {
		c.count(m)
	}
	c.call(asm.FnGetSocketCookie, stFlowKey)
	c.copy(stFlowKey+8, asm.R9, 0, 24)
	if !sendmsg {
		c.add(
			asm.LoadMem(asm.R2, asm.R6, ctxProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, int32(protoUDP), "remember"),
		)
		c.call(asm.FnGetNetnsCookie, stFlow+24)
		c.label("remember")
	}
	c.update(m.flow, stFlowKey, stFlow)
	c.writeAddr(f, asm.R9)
	c.pass()

	c.refuse(o, syscall.ECONNREFUSED)
	return c.Instructions
}

// refuse ends the program, and the system call with an error.
func (c *code) refuse(o options, why syscall.Errno) {
	c.label("refuse")
	if o.setRetval {
		c.add(asm.Mov.Imm(asm.R1, -int32(why)), asm.FnSetRetval.Call())
	}
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// sticky goes to "chosen" with the endpoint that the client had before, if it
// has one and may still use it, and to "random" otherwise. The client is the
// network namespace for services with affinity, else the socket that sends.
func (c *code) sticky(m *store, sendmsg bool) {
	c.add(asm.LoadMem(asm.R9, asm.R7, 16, asm.DWord))
	if sendmsg {
		c.add(asm.JNE.Imm(asm.R9, 0, "session"))
		c.call(asm.FnGetSocketCookie, stCliKey+8)
		c.add(
			asm.LoadMem(asm.R2, asm.R7, 0, asm.Word), asm.StoreMem(asm.RFP, stCliKey, asm.R2, asm.DWord),
			asm.LoadImm(asm.R9, int64(stickyUDP), asm.DWord),
			asm.Ja.Label("remembered"),
		)
		c.label("session")
	} else {
		c.add(asm.JEq.Imm(asm.R9, 0, "random"))
	}
	c.call(asm.FnGetNetnsCookie, stCliKey+8)
	c.add(asm.LoadMem(asm.R2, asm.R7, 8, asm.DWord), asm.StoreMem(asm.RFP, stCliKey, asm.R2, asm.DWord))
	c.label("remembered")
	c.add(asm.FnKtimeGetNs.Call(), asm.StoreMem(asm.RFP, stClient+8, asm.R0, asm.DWord))
	c.lookup(m.client, stCliKey)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "random"),
		asm.LoadMem(asm.R2, asm.R0, 8, asm.DWord),
		asm.LoadMem(asm.R3, asm.RFP, stClient+8, asm.DWord),
		// Signed: another processor may have been here since.
		asm.Sub.Reg(asm.R3, asm.R2), asm.JSGT.Reg(asm.R3, asm.R9, "random"),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.LoadMem(asm.R2, asm.R0, 0, asm.DWord), asm.StoreMem(asm.RFP, stPick+8, asm.R2, asm.DWord),
		asm.LoadMem(asm.R2, asm.R7, 0, asm.Word), asm.StoreMem(asm.RFP, stPick, asm.R2, asm.Word),
	)
	c.lookup(m.pick, stPick)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "random"),
		asm.LoadMem(asm.R2, asm.RFP, stClient+8, asm.DWord), asm.StoreMem(asm.R9, 8, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.Ja.Label("chosen"),
	)
}

// choose takes a random slot, and notes it where sticky will look.
func (c *code) choose(m *store, sendmsg bool) {
	c.label("random")
	c.add(
		asm.FnGetPrandomU32.Call(),
		asm.LoadMem(asm.R8, asm.R7, 4, asm.Word),
		asm.And.Imm(asm.R8, nodeOnly-1),
		asm.JEq.Imm(asm.R8, 0, "refuse"),
		asm.Mod.Reg32(asm.R0, asm.R8),
		asm.StoreMem(asm.RFP, stSlot+4, asm.R0, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, 0, asm.Word), asm.StoreMem(asm.RFP, stSlot, asm.R2, asm.Word),
	)
	c.lookup(m.slot, stSlot)
	c.add(asm.JNE.Imm(asm.R0, 0, "slot"))
	// The number of slots was read before it fell. The first is always there.
	c.add(asm.StoreImm(asm.RFP, stSlot+4, 0, asm.Word))
	c.lookup(m.slot, stSlot)
	c.add(asm.JEq.Imm(asm.R0, 0, "refuse"))
	c.label("slot")
	c.add(asm.Mov.Reg(asm.R9, asm.R0))
	if !sendmsg {
		c.add(asm.LoadMem(asm.R2, asm.R7, 16, asm.DWord), asm.JEq.Imm(asm.R2, 0, "chosen"))
	}
	c.add(asm.LoadMem(asm.R2, asm.R9, 24, asm.DWord), asm.StoreMem(asm.RFP, stClient, asm.R2, asm.DWord))
	c.update(m.client, stCliKey, stClient)
	if sendmsg { // datagrams that follow are of the same flow
		c.count(m)
	}
}

// backward is the program of recvmsg and getpeername.
func backward(m *store, f family) asm.Instructions {
	var c code
	c.add(asm.Mov.Reg(asm.R6, asm.R1))
	c.zero(stFlowKey, stFlowKey+32)
	c.readAddr(f, ctxIP4, ctxIP6, stFlowKey+8)
	c.add(asm.LoadMem(asm.R2, asm.R6, ctxPort, asm.Word), asm.StoreMem(asm.RFP, stFlowKey+24, asm.R2, asm.Half))
	c.call(asm.FnGetSocketCookie, stFlowKey)
	c.lookup(m.flow, stFlowKey)
	c.add(asm.JEq.Imm(asm.R0, 0, "pass"))
	c.writeAddr(f, asm.R0)
	c.pass()
	return c.Instructions
}

// release forgets a socket that is closed, so that those still open are
// remembered for longer.
func release(m *store) asm.Instructions {
	var c code
	c.add(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, sockDstPort, asm.Half),
		asm.JEq.Imm(asm.R2, 0, "pass"),
	)
	c.zero(stFlowKey, stFlowKey+32)
	c.add(
		asm.LoadMem(asm.R2, asm.R6, sockDstPort, asm.Half),
		asm.StoreMem(asm.RFP, stFlowKey+24, asm.R2, asm.Half),
		asm.LoadMem(asm.R2, asm.R6, sockFamily, asm.Word),
		asm.JEq.Imm(asm.R2, syscall.AF_INET6, "six"),
		asm.JNE.Imm(asm.R2, syscall.AF_INET, "pass"),
	)
	c.readAddr(family{}, sockDstIP4, 0, stFlowKey+8)
	c.add(asm.Ja.Label("forget"))
	c.label("six")
	c.readAddr(family{v6: true}, 0, sockDstIP6, stFlowKey+8)
	c.label("forget")
	c.call(asm.FnGetSocketCookie, stFlowKey)
	c.add(
		asm.LoadMapPtr(asm.R1, m.flow.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stFlowKey),
		asm.FnMapDeleteElem.Call(),
	)
	c.pass()
	return c.Instructions
}

// guard is the program of bind: it refuses a node port to programs of the node,
// whose clients would never get to them.
func guard(m *store, f family, o options) asm.Instructions {
	var c code
	c.add(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R2, int64(o.netns), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R2, "pass"),
	)
	c.readAddr(f, sockSrcIP4, sockSrcIP6, stSvc)
	c.add(
		asm.LoadMem(asm.R2, asm.R6, sockSrcPort, asm.Word),
		asm.HostTo(asm.BE, asm.R2, asm.Half), asm.StoreMem(asm.RFP, stSvc+16, asm.R2, asm.Half),
		asm.LoadMem(asm.R2, asm.R6, sockProtocol, asm.Word), asm.StoreMem(asm.RFP, stSvc+18, asm.R2, asm.Byte),
		asm.StoreImm(asm.RFP, stSvc+19, int64(scopeNode), asm.Byte),
	)
	c.lookup(m.addr, stSvc)
	c.add(asm.JEq.Imm(asm.R0, 0, "wild"))
	c.copy(stSvc, asm.R0, 0, 16)
	c.lookup(m.svc, stSvc)
	c.add(asm.JNE.Imm(asm.R0, 0, "refuse"), asm.Ja.Label("pass"))
	// What is not an address of the node is not found, unless it is 0.0.0.0 or
	// ::, under which node ports are.
	c.label("wild")
	c.lookup(m.svc, stSvc)
	c.add(asm.JNE.Imm(asm.R0, 0, "refuse"))
	if f.v6 { // :: is every IPv4 address too
		for i := int16(0); i < 16; i += 8 {
			c.add(asm.LoadMem(asm.R2, asm.RFP, stSvc+i, asm.DWord), asm.JNE.Imm(asm.R2, 0, "pass"))
		}
		c.add(asm.Mov.Imm32(asm.R2, mappedWord()), asm.StoreMem(asm.RFP, stSvc+8, asm.R2, asm.Word))
		c.lookup(m.svc, stSvc)
		c.add(asm.JNE.Imm(asm.R0, 0, "refuse"))
	}
	c.pass()
	c.refuse(o, syscall.EADDRINUSE)
	return c.Instructions
}

// hook is one place of the kernel with its program.
type hook struct {
	name   string // of the pinned link
	attach ebpf.AttachType
	typ    ebpf.ProgramType
	ins    asm.Instructions
}

// hooks gives all programs. Those that translate back come first, so that no
// socket is translated one way only.
func hooks(m *store, o options) []hook {
	v4, v6 := family{}, family{v6: true}
	addr := ebpf.CGroupSockAddr
	all := []hook{
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, addr, backward(m, v4)},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, addr, backward(m, v6)},
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, addr, backward(m, v4)},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, addr, backward(m, v6)},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, addr, forward(m, v4, true, o)},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, addr, forward(m, v6, true, o)},
		{"connect4", ebpf.AttachCGroupInet4Connect, addr, forward(m, v4, false, o)},
		{"connect6", ebpf.AttachCGroupInet6Connect, addr, forward(m, v6, false, o)},
		{"sock_release", ebpf.AttachCgroupInetSockRelease, ebpf.CGroupSock, release(m)},
	}
	if o.guard {
		all = append(all,
			hook{"post_bind4", ebpf.AttachCGroupInet4PostBind, ebpf.CGroupSock, guard(m, v4, o)},
			hook{"post_bind6", ebpf.AttachCGroupInet6PostBind, ebpf.CGroupSock, guard(m, v6, o)})
	}
	return all
}

// load makes the kernel check and take a program.
func (h hook) load() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "fp_" + h.name, Type: h.typ, AttachType: h.attach, Instructions: h.ins, License: "Apache-2.0",
	})
	if err != nil {
		return nil, fmt.Errorf("ebpf: load the program %s: %w", h.name, err)
	}
	return p, nil
}
