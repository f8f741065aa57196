package filter

// access asks who wants in: all who have a say must agree, or one of them.
func (c *Chain) access(x *Exchange) *Answer {
	if c.any {
		return c.anyAccess(x)
	}
	if c.listed && !c.listedIn(x) {
		return x.reply(403, "address")
	}
	if c.basic != nil {
		if a := c.basic.admit(x); a != nil {
			return a
		}
	}
	if c.auth != nil {
		return c.auth.admit(c, x)
	}
	return nil
}

// listedIn says that the lists of addresses have nothing against the client.
func (c *Chain) listedIn(x *Exchange) bool {
	return !c.deny.has(x.Client) && (c.allow.empty() || c.allow.has(x.Client))
}

// anyAccess is nginx' "satisfy any": the first that lets the client in decides, and
// nobody else is asked. If nobody does it is told to log in if that can help, else
// that it may not. A list of denied addresses alone lets nobody in: it only has
// nothing against most.
func (c *Chain) anyAccess(x *Exchange) *Answer {
	if c.basic != nil && c.basic.problem {
		return x.reply(503, "basic-auth") // nobody knows yet who may
	}
	refused := false
	if c.listed {
		switch {
		case !c.listedIn(x):
			refused = true
		case !c.allow.empty():
			return nil
		}
	}
	var a *Answer
	if c.basic != nil {
		if a = c.basic.admit(x); a == nil {
			return nil
		}
	}
	if c.auth != nil {
		b := c.auth.admit(c, x)
		if b == nil {
			x.answer.By = "" // the password's refusal is forgotten
		}
		if b == nil || b.Status != 403 || c.basic == nil {
			return b
		}
		a = c.basic.challenged(x)
	}
	if a == nil && refused {
		return x.reply(403, "address")
	}
	return a
}
